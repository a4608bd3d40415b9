//! The command line: what can be asked of `opes`, with help that teaches.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use opes_callout_server::ListenOptions;

/// Mail filtering as a pipeline: edges speak SMTP, callout services decide, OCP over gRPC runs between.
#[derive(Debug, Parser)]
#[command(name = "opes", version, about, long_about = None, after_help = "\
First steps:
  opes dev                      a whole pipeline on loopback, nothing to configure
  opes dev --demo               … and a dozen sample messages through it
  opes dev -f examples/rules    … with your own OpesRule and CalloutService files
  opes rules check examples/rules
  opes rules explain -f examples/rules --from a@example.org --to b@example.com mail.eml")]
pub(crate) struct Cli {
    /// Form of the log lines on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human)]
    pub(crate) log_format: LogFormat,

    /// What to log: a level, or directives such as `info,opes_edge=debug`
    #[arg(long, global = true, default_value = "warn", env = "OPES_LOG")]
    pub(crate) log: String,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole pipeline on loopback: edge, built-in services, spool, Maildir
    Dev(DevArgs),
    /// Run an edge (OPES processor) from a configuration file
    Edge(EdgeArgs),
    /// Run one built-in callout service
    Service(ServiceArgs),
    /// Held messages: look at them, release or delete them
    Quarantine(QuarantineArgs),
    /// What became of mail: volume, verdicts, latencies, deliveries, from the reporting service's database
    Report(ReportArgs),
    /// Check whether a callout server keeps to OCP/SMTP (docs/ocp-smtp.md, Part E)
    Conform(ConformArgs),
    /// Check and explain rules
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Help with user files
    #[command(subcommand)]
    User(UserCommand),
}

#[derive(Debug, Args)]
pub(crate) struct EdgeArgs {
    /// Configuration file; docs/operate/edge-config.md describes every key
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Take no mail: deliver what is in the spool, then end, with status 0 if nothing is left
    #[arg(long)]
    pub(crate) drain: bool,

    /// How long that may take
    #[arg(long, requires = "drain", value_name = "DURATION", default_value = "1h", value_parser = opes_edge::config::parse_duration)]
    pub(crate) drain_timeout: std::time::Duration,
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Folder (or file) with OpesRule and CalloutService objects; without it a built-in set runs
    #[arg(short = 'f', long = "rules", value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,

    /// Relay accepted mail to this server instead of the local Maildir
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) next_hop: Option<String>,

    /// Answer 250 only after the next hop's 250, without a spool
    #[arg(long, requires = "next_hop")]
    pub(crate) cut_through: bool,

    /// Send a dozen sample messages and print what became of them
    #[arg(long)]
    pub(crate) demo: bool,

    /// Stop after the demonstration
    #[arg(long, requires = "demo")]
    pub(crate) exit: bool,

    /// Folder for spool, mail and certificates
    #[arg(long, value_name = "DIR", default_value = ".opes")]
    pub(crate) state: PathBuf,

    /// SMTP listener
    #[arg(long, default_value = "127.0.0.1:2525", value_name = "ADDR")]
    pub(crate) smtp: SocketAddr,

    /// Submission listener (STARTTLS, AUTH)
    #[arg(long, default_value = "127.0.0.1:2587", value_name = "ADDR")]
    pub(crate) submission: SocketAddr,

    /// LMTP listener
    #[arg(long, default_value = "127.0.0.1:2424", value_name = "ADDR")]
    pub(crate) lmtp: SocketAddr,

    /// /metrics, /healthz, /readyz
    #[arg(long, default_value = "127.0.0.1:2580", value_name = "ADDR")]
    pub(crate) admin: SocketAddr,

    /// Downloads of attachments that became links, with the built-in rules
    #[arg(long, default_value = LINKS_DEFAULT, value_name = "ADDR")]
    pub(crate) links: SocketAddr,
}

/// As it stands in the built-in rules.
pub(crate) const LINKS_DEFAULT: &str = "127.0.0.1:2590";

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Which service
    #[arg(value_enum)]
    pub(crate) name: BuiltinName,

    #[command(flatten)]
    pub(crate) listen: ListenOptions,

    /// YAML file with the service's configuration (docs/services/NAME.md); defaults without it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ConformArgs {
    /// Where the server listens: HOST:PORT or unix:PATH, without TLS
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: String,

    /// `parameters` of the rule, for services that need some: a JSON object
    #[arg(long, value_name = "JSON", default_value = "")]
    pub(crate) parameters: String,

    /// How long one answer may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) patience: u64,

    /// Show every message of the connections on which something was found
    #[arg(long)]
    pub(crate) transcript: bool,

    /// As JSON, transcripts included
    #[arg(long, conflicts_with = "transcript")]
    pub(crate) json: bool,
}

/// The services in this binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BuiltinName {
    /// RFC 4496 §4.4, §4.8: who may send to whom, answered to the very command
    AccessControl,
    /// RFC 4496 §4.9: large attachments replaced by links that expire
    AttachmentLinks,
    /// RFC 4496 §4.8: refused during the dialog by sender, recipient, words and patterns
    ContentBlock,
    /// A milter: any program written for the milter protocol of Sendmail and Postfix
    MilterBridge,
    /// A scanner that speaks MTA Hooks, HTTP and JSON
    MtaHooks,
    /// RFC 4496 §4.6: illegal and uncommon formats repaired
    Normalizer,
    /// RFC 4496 §4.3: what became of each message, in a database
    Reporting,
    /// RFC 4496 §4.7: another recipient or another next hop
    Rerouting,
    /// RFC 4496 §4.5: OpenPGP, S/MIME and DKIM by envelope identity
    SecureMail,
    /// RFC 4496 §4.1: attachment policy
    SecurityFilter,
    /// RFC 4496 §4.2: rspamd's score, and what is done about it
    SpamFilter,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The edge must be running. Without a place the edge of `opes dev` in this folder is meant.
  opes quarantine --config edge.yaml list --queue spam --since 2d
  opes quarantine --config edge.yaml show ID --eml > held.eml
  opes quarantine --config edge.yaml release ID --to paul@example.com")]
pub(crate) struct QuarantineArgs {
    #[command(flatten)]
    pub(crate) edge: WhereArgs,

    #[command(subcommand)]
    pub(crate) command: QuarantineCommand,
}

/// Which edge is asked, and how the answer looks.
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// The edge's configuration file; its socket is in the spool folder
    #[arg(short, long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// The edge's socket, SPOOL/quarantine.sock
    #[arg(long, value_name = "PATH", global = true, conflicts_with_all = ["config", "url"])]
    pub(crate) socket: Option<PathBuf>,

    /// The edge's `quarantine.api.address`
    #[arg(
        long,
        value_name = "http://HOST:PORT",
        global = true,
        requires = "token_file",
        conflicts_with = "config"
    )]
    pub(crate) url: Option<String>,

    /// File with the token for --url
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,

    /// Your name in the history of the entry; default: your user name
    #[arg(long = "as", value_name = "NAME", global = true)]
    pub(crate) operator: Option<String>,

    /// As JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// What is held, newest first
    List(ListArgs),
    /// One message: why it is held, envelope, recipients, history
    Show {
        /// From the list
        id: String,
        /// The message itself, as it would have been delivered
        #[arg(long, conflicts_with = "json")]
        eml: bool,
    },
    /// Deliver it to all recipients that it is still held for, or to some
    Release {
        /// From the list
        id: String,
        /// Only to this recipient; may be repeated
        #[arg(long, value_name = "ADDRESS")]
        to: Vec<String>,
        /// Also to recipients that it was released to before; replaces a release that is not finished
        #[arg(long)]
        again: bool,
    },
    /// Remove messages for good
    Delete {
        /// From the list
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Remove now what has expired; the edge does so by itself every minute
    Expire,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this queue, such as spam
    #[arg(long)]
    pub(crate) queue: Option<String>,

    /// Only from this sender; `--from ''` is the null reverse-path
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Option<String>,

    /// Only to this recipient
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: Option<String>,

    /// Only with a sender or recipient of this domain
    #[arg(long)]
    pub(crate) domain: Option<String>,

    /// Only held since then: 2025-11-23 (UTC), or 2d, 12h, 30m ago
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,

    /// Only held before then
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,

    /// Only with this text in the reason
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,

    /// Entries a page, at most 1000
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,

    /// The next page, as the one before said
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without a place the database of `opes dev` in this folder is meant. Times are UTC.
  opes report --since 24h
  opes report --database /var/lib/opes/reporting.sqlite --since 2025-11-01 --until 2025-12-01 --by domain
  opes report --config reporting.yaml --by hour --json")]
pub(crate) struct ReportArgs {
    /// A SQLite file, or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "PLACE", conflicts_with = "config")]
    pub(crate) database: Option<String>,

    /// File with the password for --database postgres://…
    #[arg(long, value_name = "FILE", requires = "database")]
    pub(crate) password_file: Option<PathBuf>,

    /// The reporting service's configuration file (docs/services/reporting.md)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// From then on: 2025-11-23 (UTC), or 2d, 12h, 30m ago
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) since: String,

    /// Until then; default: now
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,

    /// This table instead of services and rules
    #[arg(long, value_enum)]
    pub(crate) by: Option<ReportBy>,

    /// Rows of a table
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rows: u32,

    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a table has a row for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportBy {
    /// Each rule
    Rule,
    /// Each service, with latencies
    Service,
    /// Each recipient domain
    Domain,
    /// Each hour
    Hour,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Compile rule files; every mistake with file, line, field and remedy
    Check {
        /// Files or folders with YAML objects
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show the plan for an envelope: which rules, why, in which order and stage
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Folder or file with the rules
    #[arg(short = 'f', long = "rules", value_name = "DIR", required = true)]
    pub(crate) rules: Vec<PathBuf>,

    /// Reverse-path
    #[arg(long, default_value = "sender@example.org")]
    pub(crate) from: String,

    /// Forward-path; may be repeated
    #[arg(long, default_value = "recipient@example.com")]
    pub(crate) to: Vec<String>,

    /// Client address
    #[arg(long, default_value = "192.0.2.1")]
    pub(crate) client: std::net::IpAddr,

    /// Argument of HELO or EHLO
    #[arg(long, default_value = "client.example.org")]
    pub(crate) helo: String,

    /// Name of the listener
    #[arg(long, default_value = "mx")]
    pub(crate) listener: String,

    /// Authenticated identity
    #[arg(long)]
    pub(crate) auth: Option<String>,

    /// What an authenticated sender asked to have left out: `*`, or services as NAMESPACE/NAME
    #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
    pub(crate) bypass: Vec<String>,

    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// A message, for rules that look at size or header fields
    #[arg(value_name = "MESSAGE.EML")]
    pub(crate) message: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Print a line for a user file; the password is read from standard input
    Hash {
        /// Name that the client authenticates as
        name: String,
    },
}

impl BuiltinName {
    /// Name as written in `CalloutService.spec.builtin.name`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        let names = Self::value_variants()
            .iter()
            .filter_map(ValueEnum::to_possible_value);
        names
            .map(|value| value.get_name().to_owned())
            .collect::<Vec<_>>()
            .join(", ")
    }
}
