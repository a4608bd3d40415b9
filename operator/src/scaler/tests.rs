//! Asked as KEDA asks: its contract over gRPC and mutual TLS, with the certificate of a service.

use std::collections::HashMap;

use opes_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::serve::tests::bed::{Bed, PATIENCE, snapshot, until};

fn object(namespace: &str, service: &str) -> ScaledObjectRef {
    ScaledObjectRef {
        name: "opes-scan".into(),
        namespace: namespace.into(),
        scaler_metadata: HashMap::from([
            ("scalerAddress".into(), "opes-operator.opes.svc:9443".into()),
            ("service".into(), service.into()),
        ]),
    }
}

async fn metrics(
    keda: &mut ExternalScalerClient<Channel>,
    metric: &str,
) -> Result<MetricValue, Status> {
    let request = GetMetricsRequest {
        scaled_object_ref: Some(object("mail", "mail/scan")),
        metric_name: metric.into(),
    };
    let answer = keda.get_metrics(request).await?.into_inner();
    assert_eq!(answer.metric_values.len(), 1);
    Ok(answer.metric_values[0].clone())
}

#[tokio::test]
async fn a_pool_is_measured_over_all_edges_and_zero_is_a_figure() {
    let bed = Bed::start().await;
    bed.publish(snapshot("1111", &[], &[]));
    let mut keda = bed.keda("mail", "scan").await;
    // Nobody says anything: that is not the same as idle.
    let blind = metrics(&mut keda, METRIC).await.unwrap_err();
    assert_eq!(blind.code(), Code::Unavailable);
    let (one, two) = (bed.edge("edge-0").await, bed.edge("edge-1").await);
    until(|| bed.edges.states().len() == 2).await;
    let idle = metrics(&mut keda, METRIC).await.unwrap();
    assert_eq!((idle.metric_name.as_str(), idle.metric_value), (METRIC, 0));
    let active = keda.is_active(object("mail", "mail/scan")).await.unwrap();
    assert!(!active.into_inner().result);

    one.load("mail/scan", 3, 2).await;
    two.load("mail/scan", 4, 0).await;
    until(|| bed.edges.load("mail/scan").in_flight == 7).await;
    let busy = metrics(&mut keda, METRIC).await.unwrap();
    assert_eq!(busy.metric_value, 9);
    assert!((busy.metric_value_float - 9.0).abs() < 0.01);
    let active = keda.is_active(object("mail", "mail/scan")).await.unwrap();
    assert!(active.into_inner().result);

    let spec = keda.get_metric_spec(object("mail", "mail/scan")).await;
    let spec = spec.unwrap().into_inner().metric_specs;
    assert_eq!(spec.len(), 1);
    assert_eq!(
        (spec[0].metric_name.as_str(), spec[0].target_size),
        (METRIC, 20)
    );
}

#[tokio::test]
async fn a_waiting_transaction_is_pushed_within_a_second() {
    let bed = Bed::start().await;
    bed.publish(snapshot("1111", &[], &[]));
    let mut keda = bed.keda("mail", "scan").await;
    let stream = keda.stream_is_active(object("mail", "mail/scan")).await;
    let mut stream = stream.unwrap().into_inner();
    let edge = bed.edge("edge-0").await;
    let mut next = async || {
        let message = tokio::time::timeout(PATIENCE, stream.message());
        message
            .await
            .unwrap()
            .unwrap()
            .map(|message| message.result)
    };
    assert_eq!(next().await, Some(false));
    // The quickest counts: others can be late because the machine is busy. Whoever only looks now and then is late each time.
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let said = Instant::now();
        edge.load("mail/scan", 0, 1).await;
        assert_eq!(next().await, Some(true));
        quickest = quickest.min(said.elapsed());
        edge.load("mail/scan", 0, 0).await;
        assert_eq!(next().await, Some(false));
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    // The service loses its pool.
    let mut without = snapshot("2222", &[], &[]);
    without.pools.clear();
    bed.publish(without);
    edge.load("mail/scan", 0, 1).await;
    let gone = tokio::time::timeout(PATIENCE, stream.message())
        .await
        .unwrap();
    assert_eq!(gone.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_end_ends_streams() {
    let bed = Bed::start().await;
    bed.publish(snapshot("1111", &[], &[]));
    let mut keda = bed.keda("mail", "scan").await;
    let _edge = bed.edge("edge-0").await;
    let stream = keda.stream_is_active(object("mail", "mail/scan")).await;
    let mut stream = stream.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    bed.shutdown.cancel();
    let end = tokio::time::timeout(PATIENCE, stream.message()).await;
    assert!(end.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn nobody_asks_about_another_ones_service() {
    let bed = Bed::start().await;
    bed.publish(snapshot("1111", &[], &[]));
    let mut keda = bed.keda("mail", "scan").await;
    let mut code = async |object: ScaledObjectRef| {
        let refused = keda.is_active(object).await;
        refused.unwrap_err().code()
    };
    assert_eq!(
        code(object("other", "mail/scan")).await,
        Code::PermissionDenied
    );
    assert_eq!(
        code(object("mail", "mail/other")).await,
        Code::PermissionDenied
    );
    assert_eq!(code(object("mail", "scan")).await, Code::InvalidArgument);
    let mut without = object("mail", "");
    without.scaler_metadata.clear();
    assert_eq!(code(without).await, Code::InvalidArgument);

    let mut other = bed.keda("mail", "other").await;
    let unknown = other.is_active(object("mail", "mail/other")).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    let refused = other.is_active(object("mail", "mail/scan")).await;
    assert!(refused.unwrap_err().message().contains("opes-scan-tls"));
    let metric = metrics(&mut keda, "s0-other").await;
    assert_eq!(metric.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn nothing_said_means_nothing_at_first() {
    let (snapshots, peers) = (
        tokio::sync::watch::Sender::new(None),
        tokio::sync::watch::Sender::new(Arc::default()),
    );
    let served = Served {
        snapshots: snapshots.subscribe(),
        peers: peers.subscribe(),
        edges: Edges::new(),
    };
    let busy = Busy::new(&served, WARM_UP);
    assert_eq!(busy.figure("mail/scan"), Err(NoFigure::TooEarly));
    snapshots.send_replace(Some(Arc::new(snapshot("1111", &[], &[]))));
    assert_eq!(busy.figure("mail/scan"), Err(NoFigure::TooEarly));
    assert_eq!(busy.figure("mail/other"), Err(NoFigure::NoPool));
    tokio::time::advance(WARM_UP).await;
    assert_eq!(busy.figure("mail/scan"), Err(NoFigure::NoEdges));
    let hello = opes_proto::routing::Hello {
        edge: "edge-0".into(),
        namespace: "opes".into(),
        ..Default::default()
    };
    let _edge = served.edges.join(&hello).unwrap();
    assert_eq!(busy.figure("mail/scan"), Ok(0));
}
