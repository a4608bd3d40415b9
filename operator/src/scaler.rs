//! How busy a pool is, as KEDA asks for it: the external scaler of `proto/externalscaler`, on the routing port.
//!
//! A trigger names its service in `metadata.service` as `NAMESPACE/NAME`; the namespace has to be the `ScaledObject`'s, and the
//! certificate that KEDA shows has to be that service's (Secret `opes-NAME-tls`), so that no tenant asks about another one's mail. The
//! figure is open and waiting transactions over all edges: nothing said is zero. Before edges had the time to say anything, and while
//! there are none, it is unavailable, and KEDA does nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use opes_proto::externalscaler::external_scaler_server::ExternalScaler;
use opes_proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

use crate::certificates::service_name;
use crate::edges::Edges;
use crate::serve::Served;
use crate::serve::accept::Caller;
use crate::shared::{PoolFacts, Snapshots};

/// Name of the one metric there is.
pub const METRIC: &str = "opes-callout-in-flight";
/// After a start, for edges to connect and say how busy they are; until then nothing said means nothing.
pub const WARM_UP: Duration = Duration::from_secs(15);
/// Streams of [`ExternalScaler::stream_is_active`] at once.
const STREAMS_MAX: usize = 4_096;
/// Pause after each message of such a stream: what flickers need not be told each time.
const TELL_PAUSE: Duration = Duration::from_millis(500);
/// How often the figure is looked at when nobody says anything: a silent edge's load goes stale.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How busy pools are, for whoever scales them.
#[derive(Debug, Clone)]
pub struct Busy {
    snapshots: Snapshots,
    edges: Arc<Edges>,
    warm_at: Instant,
}

/// Why there is no figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoFigure {
    /// The operator has just started.
    #[error("the operator has just started and has not heard of all edges yet")]
    TooEarly,
    /// Nobody says how busy pools are. Mail may flow all the same, by edges that cannot reach us: to take that for idle would
    /// scale down what they need.
    #[error(
        "no edge is connected to this replica of the operator, so nobody says how busy the pool is"
    )]
    NoEdges,
    /// No such pool.
    #[error("the operator runs no pool for this CalloutService")]
    NoPool,
}

// === impl Busy ===

impl Busy {
    /// For `warm_up` from now on there is no figure ([`WARM_UP`]).
    pub fn new(served: &Served, warm_up: Duration) -> Self {
        Self {
            snapshots: served.snapshots.clone(),
            edges: Arc::clone(&served.edges),
            warm_at: Instant::now() + warm_up,
        }
    }

    /// Transactions of `service` (`NAMESPACE/NAME`) that are open or wait, over all edges.
    pub fn figure(&self, service: &str) -> Result<u64, NoFigure> {
        self.facts(service)?;
        if Instant::now() < self.warm_at {
            return Err(NoFigure::TooEarly);
        }
        // One that has left a moment ago is mostly back in the next.
        if self.edges.states().is_empty() {
            return Err(NoFigure::NoEdges);
        }
        let load = self.edges.load(service);
        Ok(load.in_flight.saturating_add(load.queued))
    }

    /// What scaling has to know of `service`.
    pub fn facts(&self, service: &str) -> Result<PoolFacts, NoFigure> {
        let snapshot = self.snapshots.borrow();
        let snapshot = snapshot.as_ref().ok_or(NoFigure::TooEarly)?;
        snapshot.pools.get(service).cloned().ok_or(NoFigure::NoPool)
    }

    /// Names of the services in `namespace` that have a pool.
    pub fn services(&self, namespace: &str) -> Result<Vec<String>, NoFigure> {
        let snapshot = self.snapshots.borrow();
        let snapshot = snapshot.as_ref().ok_or(NoFigure::TooEarly)?;
        let names = snapshot
            .pools
            .keys()
            .filter_map(|name| name.split_once('/'));
        let here = names.filter(|(of, _)| *of == namespace);
        Ok(here.map(|(_, name)| name.to_owned()).collect())
    }
}

impl From<NoFigure> for Status {
    fn from(error: NoFigure) -> Self {
        match error {
            NoFigure::TooEarly | NoFigure::NoEdges => Self::unavailable(error.to_string()),
            NoFigure::NoPool => Self::not_found(error.to_string()),
        }
    }
}

/// The gRPC service.
pub(crate) struct Scaler {
    busy: Busy,
    streams: Arc<Semaphore>,
    shutdown: CancellationToken,
}

type Activity = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

// === impl Scaler ===

impl Scaler {
    pub(crate) fn new(busy: Busy, shutdown: CancellationToken) -> Self {
        Self {
            busy,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            shutdown,
        }
    }

    /// The service that is asked about, by somebody who may.
    fn service<T>(
        request: &Request<T>,
        object: Option<&ScaledObjectRef>,
    ) -> Result<String, Status> {
        let object = object.ok_or_else(|| Status::invalid_argument("no ScaledObject is named"))?;
        let service = object.scaler_metadata.get("service").ok_or_else(|| {
            Status::invalid_argument(
                "metadata.service is missing: NAMESPACE/NAME of the CalloutService",
            )
        })?;
        let Some((namespace, name)) = service.split_once('/') else {
            return Err(Status::invalid_argument(format!(
                "metadata.service: `{service}` is not NAMESPACE/NAME"
            )));
        };
        if namespace != object.namespace {
            return Err(Status::permission_denied(format!(
                "metadata.service: `{service}` is in another namespace than the ScaledObject"
            )));
        }
        let wanted = service_name(namespace, name);
        let caller = request.extensions().get::<Caller>();
        if !caller.is_some_and(|caller| caller.is(&wanted)) {
            return Err(Status::permission_denied(format!(
                "only who has the certificate for {wanted} may ask: name Secret opes-{name}-tls in the TriggerAuthentication"
            )));
        }
        Ok(service.clone())
    }
}

#[async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = Activity;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let service = Self::service(&request, Some(request.get_ref()))?;
        let result = self.busy.figure(&service)? > 0;
        Ok(Response::new(IsActiveResponse { result }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Activity>, Status> {
        let service = Self::service(&request, Some(request.get_ref()))?;
        self.busy.facts(&service)?;
        let place = Arc::clone(&self.streams).try_acquire_owned();
        let place = place.map_err(|_full| {
            Status::resource_exhausted(format!("{STREAMS_MAX} streams are open already"))
        })?;
        let over = request
            .extensions()
            .get::<Caller>()
            .map(|caller| caller.over.clone());
        let (out, activity) = mpsc::channel(1);
        let (busy, shutdown) = (self.busy.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = tell(&busy, &service, &out) => {}
                () = over.unwrap_or_default().cancelled_owned() => {}
                () = shutdown.cancelled() => {}
            }
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(activity))))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let service = Self::service(&request, Some(request.get_ref()))?;
        let target = self.busy.facts(&service)?.target_in_flight.max(1);
        let spec = MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: target.into(),
            target_size_float: target.into(),
        };
        Ok(Response::new(GetMetricSpecResponse {
            metric_specs: vec![spec],
        }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let asked = request.get_ref();
        let service = Self::service(&request, asked.scaled_object_ref.as_ref())?;
        if asked.metric_name != METRIC {
            let text = format!("there is no metric `{}`, only {METRIC}", asked.metric_name);
            return Err(Status::not_found(text));
        }
        let figure = self.busy.figure(&service)?;
        // Beyond what an f64 holds exactly nobody counts.
        #[allow(clippy::cast_precision_loss)]
        let value = MetricValue {
            metric_name: METRIC.to_owned(),
            metric_value: i64::try_from(figure).unwrap_or(i64::MAX),
            metric_value_float: figure as f64,
        };
        Ok(Response::new(GetMetricsResponse {
            metric_values: vec![value],
        }))
    }
}

/// Tells now and whenever it changes, until the stream or the pool is gone.
async fn tell(busy: &Busy, service: &str, out: &mpsc::Sender<Result<IsActiveResponse, Status>>) {
    let mut loaded = busy.edges.loaded();
    let mut told = None;
    loop {
        loaded.mark_unchanged();
        let active = match busy.figure(service) {
            Ok(figure) => Some(figure > 0),
            // Somebody waits: that is true however early it is.
            Err(NoFigure::TooEarly) if busy.edges.load(service).queued > 0 => Some(true),
            Err(NoFigure::TooEarly | NoFigure::NoEdges) => None,
            Err(error @ NoFigure::NoPool) => {
                drop(out.send(Err(error.into())).await);
                return;
            }
        };
        if let Some(result) = active.filter(|_| active != told) {
            if out.send(Ok(IsActiveResponse { result })).await.is_err() {
                return;
            }
            told = active;
            tokio::time::sleep(TELL_PAUSE).await;
        }
        tokio::select! {
            () = out.closed() => return,
            changed = loaded.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

#[cfg(test)]
mod tests;
