//! The cluster's DNS: answers for `NAME.NAMESPACE.svc.cluster.local` from Services and EndpointSlices, no such name for anything else.
//!
//! It asks the API server for each query and keeps nothing, so it is never behind. What it lacks of a real one: SRV, PTR, and a way out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::{Client, Config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// Seconds: who asks again gets news.
const TTL: u32 = 1;
const QUERY_MAX: usize = 4096;
const AT_ONCE_MAX: usize = 256;

/// Answers on UDP and TCP until its runtime ends.
pub(super) async fn serve(address: SocketAddr, config: Config) -> Result<()> {
    let client = Client::try_from(config)?;
    let udp = Arc::new(UdpSocket::bind(address).await?);
    let tcp = TcpListener::bind(address).await?;
    let room = Arc::new(Semaphore::new(AT_ONCE_MAX));
    tokio::spawn(serve_tcp(tcp, client.clone(), Arc::clone(&room)));
    tokio::spawn(serve_udp(udp, client, room));
    Ok(())
}

async fn serve_udp(socket: Arc<UdpSocket>, client: Client, room: Arc<Semaphore>) {
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let mut query = vec![0; QUERY_MAX];
        let Ok((length, peer)) = socket.recv_from(&mut query).await else {
            continue;
        };
        query.truncate(length);
        let (socket, client) = (Arc::clone(&socket), client.clone());
        tokio::spawn(async move {
            // Who gets no answer asks again.
            if let Ok(reply) = answer(&client, &query).await {
                let _ = socket.send_to(&reply, peer).await;
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: TcpListener, client: Client, room: Arc<Semaphore>) {
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let client = client.clone();
        tokio::spawn(async move {
            // The resolver closes when it has what it wants.
            let _ = converse(stream, &client).await;
            drop(permit);
        });
    }
}

async fn converse(mut stream: TcpStream, client: &Client) -> Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; length.into()];
        stream.read_exact(&mut query).await?;
        let reply = answer(client, &query).await?;
        stream.write_u16(reply.len().try_into()?).await?;
        stream.write_all(&reply).await?;
    }
}

async fn answer(client: &Client, octets: &[u8]) -> Result<Vec<u8>> {
    let mut message = Message::from_vec(octets)?;
    message.metadata.message_type = MessageType::Response;
    message.metadata.authoritative = true;
    message.metadata.recursion_available = true;
    message.additionals.clear();
    message.edns = None;
    let query = message.queries.first().context("no question")?.clone();
    match resolve(client, &query).await {
        Ok(Some(addresses)) => {
            let records = addresses
                .into_iter()
                .filter_map(|address| record(&query, address));
            message.add_answers(records.collect::<Vec<_>>());
        }
        Ok(None) => message.metadata.response_code = ResponseCode::NXDomain,
        Err(_) => message.metadata.response_code = ResponseCode::ServFail,
    }
    Ok(message.to_vec()?)
}

fn record(query: &Query, address: IpAddr) -> Option<Record> {
    let data = match (query.query_type(), address) {
        (RecordType::A, IpAddr::V4(address)) => RData::A(A(address)),
        (RecordType::AAAA, IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
        _ => return None,
    };
    Some(Record::from_rdata(query.name().clone(), TTL, data))
}

/// Addresses of the name; `None` = no such name.
async fn resolve(client: &Client, query: &Query) -> Result<Option<Vec<IpAddr>>> {
    let name = query.name().to_lowercase().to_ascii();
    let Some(name) = name
        .trim_end_matches('.')
        .strip_suffix(".svc.cluster.local")
    else {
        return Ok(None);
    };
    let labels: Vec<&str> = name.split('.').collect();
    let (host, name, namespace) = match labels.as_slice() {
        [name, namespace] => (None, *name, *namespace),
        [host, name, namespace] => (Some(*host), *name, *namespace),
        _ => return Ok(None),
    };
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let Some(service) = services.get_opt(name).await? else {
        return Ok(None);
    };
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .unwrap_or_default();
    if let (Ok(address), None) = (address.parse(), host) {
        return Ok(Some(vec![address]));
    }
    let addresses = endpoints(client, namespace, name, host).await?;
    Ok((host.is_none() || !addresses.is_empty()).then_some(addresses))
}

/// Ready endpoints of a headless Service, or the one that has this host name.
async fn endpoints(
    client: &Client,
    namespace: &str,
    service: &str,
    host: Option<&str>,
) -> Result<Vec<IpAddr>> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let selector = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let mut addresses = Vec::new();
    for endpoint in slices
        .list(&selector)
        .await?
        .items
        .into_iter()
        .flat_map(|it| it.endpoints)
    {
        let ready = endpoint.conditions.and_then(|it| it.ready).unwrap_or(true);
        if ready && (host.is_none() || endpoint.hostname.as_deref() == host) {
            addresses.extend(
                endpoint
                    .addresses
                    .iter()
                    .filter_map(|it| it.parse::<IpAddr>().ok()),
            );
        }
    }
    Ok(addresses)
}
