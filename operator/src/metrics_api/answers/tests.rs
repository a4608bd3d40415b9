use std::sync::Arc;
use std::time::Duration;

use opes_proto::routing::{Hello, PoolLoad};
use tokio::sync::watch;

use super::*;
use crate::edges::Edges;
use crate::serve::Served;
use crate::serve::tests::bed::snapshot;

struct Asked {
    edges: Arc<Edges>,
    busy: Busy,
}

fn asked(warm_up: Duration) -> Asked {
    let snapshots = watch::Sender::new(Some(Arc::new(snapshot("1111", &[], &[]))));
    let peers = watch::Sender::new(Arc::default());
    let edges = Edges::new();
    let served = Served {
        snapshots: snapshots.subscribe(),
        peers: peers.subscribe(),
        edges: Arc::clone(&edges),
    };
    let busy = Busy::new(&served, warm_up);
    Asked { edges, busy }
}

impl Asked {
    fn get(&self, path: &str) -> Answer {
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(p, q)| (p, Some(q)));
        answer(&self.busy, &Method::GET, path, query)
    }

    fn values(&self, namespace: &str, query: &str) -> Answer {
        self.get(&format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{METRIC}{query}"
        ))
    }
}

#[tokio::test]
async fn idle_is_zero_and_busy_is_the_sum() {
    let api = asked(Duration::ZERO);
    let query = "?labelSelector=opes.dev%2Fcallout-service%3Dscan";
    let blind = api.values("mail", query);
    assert_eq!(blind.status, StatusCode::SERVICE_UNAVAILABLE);

    let hello = |edge: &str| Hello {
        edge: edge.into(),
        namespace: "opes".into(),
        version: String::new(),
        running: String::new(),
    };
    let edges = ["a", "b"].map(|edge| api.edges.join(&hello(edge)).unwrap());
    let idle = api.values("mail", query);
    assert_eq!(idle.status, StatusCode::OK);
    assert_eq!(idle.body["kind"], "ExternalMetricValueList");
    assert_eq!(idle.body["items"][0]["value"], "0");

    for edge in &edges {
        edge.load(&[PoolLoad {
            service: "mail/scan".into(),
            in_flight: 20,
            queued: 1,
        }]);
    }
    for query in [
        query,
        "",
        "?labelSelector=",
        "?labelSelector=opes.dev%2Fcallout-service%3D%3Dscan",
    ] {
        let busy = api.values("mail", query).body;
        assert_eq!(busy["items"].as_array().unwrap().len(), 1, "{query}");
        let item = &busy["items"][0];
        assert_eq!(item["value"], "42");
        assert_eq!(item["metricName"], METRIC);
        assert_eq!(item["metricLabels"]["opes.dev/callout-service"], "scan");
        let stamp: Timestamp = item["timestamp"].as_str().unwrap().parse().unwrap();
        assert!(stamp.duration_until(Timestamp::now()).as_secs().abs() < 60);
    }
}

#[tokio::test]
async fn what_cannot_be_said_is_refused_with_the_reason() {
    let api = asked(Duration::ZERO);
    let refused = |answer: Answer, status: u16, text: &str| {
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.body["kind"], "Status");
        assert_eq!(answer.body["code"], status);
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(text), "{message}");
    };
    let selector = |text: &str| format!("?labelSelector={text}");
    refused(
        api.values("mail", &selector("app%3Dx")),
        400,
        "opes.dev/callout-service=NAME",
    );
    refused(
        api.values("mail", &selector("opes.dev%2Fcallout-service%21%3Dscan")),
        400,
        "not understood",
    );
    refused(
        api.values(
            "mail",
            &selector("opes.dev%2Fcallout-service%3Dscan%2Ca%3Db"),
        ),
        400,
        "not understood",
    );
    refused(
        api.values("mail", &format!("?{}", "x".repeat(9_000))),
        400,
        "too long",
    );
    refused(
        api.values("mail", &selector("opes.dev%2Fcallout-service%3Dother")),
        404,
        "no pool",
    );
    refused(
        api.values("other", &selector("opes.dev%2Fcallout-service%3Dscan")),
        404,
        "no pool",
    );
    refused(
        api.get("/apis/external.metrics.k8s.io/v1beta1/namespaces/mail/else"),
        404,
        METRIC,
    );
    refused(api.get("/"), 404, "nothing here");
    let posted = answer(&api.busy, &Method::POST, "/apis", None);
    refused(posted, 405, "GET");
    assert_eq!(api.values("other", "").body["items"], json!([]));

    let early = asked(Duration::from_hours(1));
    refused(early.values("mail", ""), 503, "just started");
}

#[tokio::test]
async fn discovery_names_the_metric() {
    let api = asked(Duration::ZERO);
    let list = api.get("/apis").body;
    assert_eq!(list["groups"][0]["name"], GROUP);
    let group = api.get("/apis/external.metrics.k8s.io").body;
    assert_eq!(
        group["preferredVersion"]["groupVersion"],
        "external.metrics.k8s.io/v1beta1"
    );
    let resources = api.get("/apis/external.metrics.k8s.io/v1beta1").body;
    assert_eq!(resources["resources"][0]["name"], METRIC);
    assert_eq!(api.get("/openapi/v2").body["swagger"], "2.0");
    assert_eq!(api.get("/openapi/v3").status, StatusCode::OK);
}
