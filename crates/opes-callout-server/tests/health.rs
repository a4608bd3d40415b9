//! What Kubernetes and people with grpcurl see of a service.

// Unwrapping is how these tests fail.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use opes_callout_server::{Description, Listener, ServerConfig, Service, serve};
use opes_proto::ocp::callout_client::CalloutClient;
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{Frame, Message, TransactionStart};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const PATIENCE: Duration = Duration::from_secs(20);

struct Nothing;

impl Service for Nothing {
    fn describe(&self) -> Description {
        Description::new("nothing")
    }
}

struct Running {
    channel: Channel,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn start() -> Running {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.address());
    let shutdown = CancellationToken::new();
    let serving = serve(
        Arc::new(Nothing),
        listener,
        ServerConfig::default(),
        shutdown.clone(),
    );
    let done = tokio::spawn(serving);
    let channel = Channel::from_shared(target)
        .unwrap()
        .connect()
        .await
        .unwrap();
    Running {
        channel,
        shutdown,
        done,
    }
}

#[tokio::test]
async fn health_of_the_server_and_of_the_protocol() {
    let running = start().await;
    let mut health = HealthClient::new(running.channel.clone());
    for service in ["", "opes.ocp.v1.Callout"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn health_says_so_when_it_drains() {
    let running = start().await;
    let mut health = HealthClient::new(running.channel.clone());
    let request = HealthCheckRequest {
        service: "opes.ocp.v1.Callout".to_owned(),
    };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    running.shutdown.cancel();
    let next = tokio::time::timeout(PATIENCE, watch.message())
        .await
        .unwrap();
    assert_eq!(next.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((watch, health, running.channel));
    tokio::time::timeout(PATIENCE, running.done)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let running = start().await;
    let mut client = ServerReflectionClient::new(running.channel.clone());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    assert!(
        names.iter().any(|name| name == "opes.ocp.v1.Callout"),
        "{names:?}"
    );
}

#[tokio::test]
async fn a_processor_that_breaks_the_protocol_is_told_so() {
    let running = start().await;
    let start = Kind::TransactionStart(TransactionStart::default());
    let frame = Frame {
        messages: vec![Message { kind: Some(start) }],
    };
    // A stream that stays open: the server is the one who ends it.
    let (sender, frames) = tokio::sync::mpsc::channel(1);
    sender.send(frame).await.unwrap();
    let outbound = tokio_stream::wrappers::ReceiverStream::new(frames);
    let mut client = CalloutClient::new(running.channel.clone());
    let mut inbound = client.connect(outbound).await.unwrap().into_inner();
    let mut reason = None;
    while let Some(frame) = tokio::time::timeout(PATIENCE, inbound.message())
        .await
        .unwrap()
        .unwrap()
    {
        for message in frame.messages {
            if let Some(Kind::ConnectionEnd(end)) = message.kind {
                reason = end.result.map(|result| (result.code, result.reason));
            }
        }
    }
    let (code, reason) = reason.expect("a CE with a reason");
    assert_eq!(code, 400);
    assert!(reason.contains("the first message was not CS"), "{reason}");
}
