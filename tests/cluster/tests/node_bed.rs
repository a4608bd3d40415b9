//! The whole node of the fixture: pods run and are reached as in any cluster, and nothing stays on the machine.

mod whole_node {
    use std::time::Instant;

    use anyhow::Result;
    use opes_cluster::Node;

    #[tokio::test(flavor = "multi_thread")]
    async fn pods_run() -> Result<()> {
        let started = Instant::now();
        let node = Node::start().await?;
        println!("node Ready after {:.1?}", started.elapsed());
        println!("{}", node.kubectl(&["get", "nodes", "-o", "wide"])?);
        Ok(())
    }
}
