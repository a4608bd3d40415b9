//! The callout service: reads a message as it arrives, and answers with edits once everything that they refer to is stored.
//!
//! Fails its transaction, so that the rule's failure policy decides, if a part cannot be stored, and if the rule does not allow it to replace
//! parts or shows it a part of the message only.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use opes_callout_server::{Answer, Description, GroupParameters, Message, Service};
use opes_host::Clock;
use opes_mime::display::first_texts;
use opes_proto::smtp::Permission;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Replacement, Settings, StoreConfig};
use crate::insert::{self, Entry};
use crate::intake::{Depot, Intake, Moved, Taken};
use crate::link::Keys;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::sweep;
use crate::web::Web;

/// Annotation with the number of parts that were moved; absent if there was none.
pub const MOVED_ANNOTATION: &str = "attachment-links.moved";

/// The key beside a folder, if there is no `keyFile`.
const OWN_KEY: &str = "link.key";
/// Most sets of rule parameters kept.
const PARAMETERS_MAX: usize = 1024;

const BEYOND_LIMIT: &str = "its structure goes beyond a limit: not touched";

/// Attachments to links as a callout service.
#[derive(Debug)]
pub struct AttachmentLinks {
    config: Config,
    settings: Arc<Settings>,
    /// Those of rules with parameters, by their JSON text.
    by_parameters: Mutex<HashMap<String, Arc<Settings>>>,
    keys: Keys,
    depot: Depot,
    clock: Clock,
    /// Taken by the web server when it starts.
    listener: Mutex<Option<TcpListener>>,
}

// === impl AttachmentLinks ===

impl AttachmentLinks {
    /// From `builtin.config` of the CalloutService. Makes the folder, and a key in it if there is no `keyFile`.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        Self::from_config_in(Path::new(""), json)
    }

    /// The same; relative paths are below `folder`.
    pub fn from_config_in(folder: &Path, json: &serde_json::Value) -> anyhow::Result<Self> {
        let of_service = "attachment-links";
        let config = Config::from_json(json).context(of_service)?.below(folder);
        let store = Store::open(&config.store)
            .context("store")
            .context(of_service)?;
        let keys = match (&config.key_file, &config.store) {
            (Some(path), _) => Keys::open(path),
            (None, StoreConfig::Folder(folder)) => Keys::own(&folder.join(OWN_KEY)),
            (None, StoreConfig::S3(_)) => bail!("keyFile is needed with store.s3"),
        };
        let depot = Depot {
            store,
            places: Arc::new(Semaphore::new(config.uploads_max)),
            metrics: Metrics::default(),
        };
        Ok(Self {
            settings: Arc::new(config.settings.clone()),
            by_parameters: Mutex::default(),
            keys: keys.context(of_service)?,
            depot,
            clock: Clock::default(),
            listener: Mutex::default(),
            config,
        })
    }

    /// Serves the files here, in place of the configuration's `web`.
    #[must_use]
    pub fn serving_on(self, listener: TcpListener) -> Self {
        let listener = Mutex::new(Some(listener));
        Self { listener, ..self }
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The configuration's `web`.
    pub fn web(&self) -> Option<SocketAddr> {
        self.config.web
    }

    /// Shows the service's metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.depot.metrics.register(registry);
    }

    fn settings(&self, parameters: &GroupParameters) -> anyhow::Result<Arc<Settings>> {
        if matches!(parameters.json.trim(), "" | "{}" | "null") {
            return Ok(Arc::clone(&self.settings));
        }
        let mut known = self
            .by_parameters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(settings) = known.get(&parameters.json) {
            return Ok(Arc::clone(settings));
        }
        let settings = self.config.with_parameters(&parameters.json);
        let settings = Arc::new(settings.with_context(|| format!("rule {}", parameters.rule))?);
        if known.len() >= PARAMETERS_MAX {
            known.clear();
        }
        known.insert(parameters.json.clone(), Arc::clone(&settings));
        Ok(settings)
    }

    /// `Err` with the answer: nothing of the message is to be moved.
    async fn taken(
        &self,
        message: &mut Message,
        settings: &Settings,
    ) -> anyhow::Result<Result<Taken, Answer>> {
        let now = self.clock.since_epoch().as_secs();
        let mut intake = Intake::new(&self.depot, settings, now);
        if message.size().is_some_and(|size| size < settings.size_min) {
            message.stop_receiving().await?;
            return Ok(Err(Answer::accept()));
        }
        while let Some(chunk) = message.chunk().await? {
            intake.push(&chunk).await?;
            if intake.is_beyond_limits() {
                message.stop_receiving().await?;
                return Ok(Err(Answer::accept().reason(BEYOND_LIMIT)));
            }
        }
        if message.is_whole() != Some(true) {
            bail!(
                "only parts of whole messages can be moved; the rule's `wants.content` must be all"
            );
        }
        let taken = intake.finish().await?;
        // The last line, too, can go beyond a limit.
        Ok(if taken.structure.truncated.is_some() {
            Err(Answer::accept().reason(BEYOND_LIMIT))
        } else {
            Ok(taken)
        })
    }

    fn answer(&self, taken: &Taken, settings: &Settings, may_write: bool) -> Answer {
        let entries: Vec<Entry> = taken.moved.iter().map(|moved| self.entry(moved)).collect();
        let mut answer = Answer::accept();
        let mut is_shown = false;
        for (index, body) in taken.texts.iter().filter(|_| may_write) {
            let is_first = shown(taken).contains(index);
            let part = taken.structure.parts.get(*index).filter(|_| is_first);
            let splice = part.and_then(|part| {
                insert::into_text(&taken.structure, part, body, &settings.text, &entries)
            });
            if let Some(splice) = splice {
                answer = answer.splice(splice.offset, splice.size, splice.replacement);
                is_shown = true;
            }
        }
        let may_remove = is_shown && settings.replacement == Replacement::Remove;
        for (moved, entry) in taken.moved.iter().zip(&entries) {
            let removal = insert::removal(&taken.structure, moved.index).filter(|_| may_remove);
            let part = taken.structure.parts.get(moved.index);
            answer = match (removal, part) {
                (Some(splice), _) => answer.splice(splice.offset, splice.size, splice.replacement),
                (None, Some(part)) => {
                    answer.replace_part(&part.path, insert::plain(&settings.text, entry))
                }
                (None, None) => answer,
            };
        }
        let count = taken.moved.len();
        answer
            .annotate(MOVED_ANNOTATION, count.to_string())
            .reason(format!("{count} attachments moved"))
    }

    fn entry(&self, moved: &Moved) -> Entry {
        let about = &moved.about;
        Entry {
            name: about.name.clone(),
            kind: about.kind.clone(),
            size: about.size,
            expires: moved.key.expires,
            link: format!("{}/{}", self.config.base_url, self.keys.sign(moved.key)),
        }
    }

    async fn listener(&self) -> anyhow::Result<Option<TcpListener>> {
        let given = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (given, self.config.web) {
            (None, Some(address)) => sweep::bind(address).await.map(Some),
            (given, _) => Ok(given),
        }
    }
}

/// The texts that are seen first when the parts are gone.
fn shown(taken: &Taken) -> Vec<usize> {
    let parts = &taken.structure.parts;
    let gone = || {
        taken
            .moved
            .iter()
            .filter_map(|moved| parts.get(moved.index))
    };
    first_texts(&taken.structure, |part| {
        gone().any(|gone| gone.path == part.path)
    })
}

impl Service for AttachmentLinks {
    fn describe(&self) -> Description {
        Description::new(concat!("attachment-links/", env!("CARGO_PKG_VERSION"))).whole_content()
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let settings = self.settings(message.parameters())?;
        let parameters = message.parameters();
        let may_write = parameters.allows(Permission::Body);
        if !parameters.allows(Permission::ReplacePart) {
            bail!(
                "rule {} does not allow replacePart: attachments cannot be moved; add it to its callout.allow, and body for links in the text",
                parameters.rule
            );
        }
        let taken = match self.taken(message, &settings).await? {
            Ok(taken) if !taken.moved.is_empty() => taken,
            Ok(_nothing) => return Ok(Answer::accept()),
            Err(answer) => return Ok(answer),
        };
        let answer = self.answer(&taken, &settings, may_write);
        taken.stored.keep();
        Ok(answer)
    }

    async fn background(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let depot = &self.depot;
        let sweeper = sweep::run(
            depot.store.clone(),
            depot.metrics.clone(),
            self.clock.clone(),
        );
        let web = async {
            let listener = tokio::select! {
                listener = self.listener() => listener?,
                () = stop.cancelled() => return Ok(()),
            };
            let Some(listener) = listener else {
                tracing::info!("no web address: another process has to serve the files");
                stop.cancelled().await;
                return Ok(());
            };
            let web = Web::new(
                depot.store.clone(),
                self.keys.clone(),
                &self.config.base_url,
                self.clock.clone(),
                depot.metrics.clone(),
            );
            web.serve(listener, self.config.connections_max, stop.clone())
                .await;
            anyhow::Ok(())
        };
        tokio::select! {
            served = web => served,
            () = sweeper => Ok(()),
        }
    }
}
