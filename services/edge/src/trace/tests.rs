//! What the edge writes, believes and takes out.

use std::path::Path;

use opes_content::{Budget, Limits, View};
use opes_mime::{Rope, Splice};

use super::*;

const OBJECTS: &str = "apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: scan }
spec: { class: analyze, endpoint: 'unix:/run/scan' }
---
apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: translate }
spec: { class: adapt, endpoint: 'unix:/run/translate', bypass: { allowed: true, uri: 'https://translate.example.net/' } }
---
apiVersion: opes.dev/v1alpha1
kind: OpesRule
metadata: { name: scans }
spec: { at: [content], callout: { serviceRef: { name: scan } } }
---
apiVersion: opes.dev/v1alpha1
kind: OpesRule
metadata: { name: translates }
spec: { at: [content], callout: { serviceRef: { name: translate } } }
";

const FROM_CLIENT: &str =
    "Subject: a\r\nOPES-System: https://mail.example.net/opes; id=7\r\n\r\nbody\r\n";
const CLAIM: &str = "OPES-System: https://mail.example.com/opes; id=1\r\n";

fn table(text: &str) -> RoutingTable {
    let (objects, wrong) = opes_rules::parse("test", text);
    assert!(wrong.is_empty(), "{wrong:?}");
    opes_rules::compile(objects).unwrap()
}

fn tracer(bypass: Option<BypassConfig>) -> Tracer {
    let config = EdgeConfig {
        bypass,
        ..EdgeConfig::new("mail.example.com", "spool".into())
    };
    Tracer::new(&config).unwrap()
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|word| (*word).to_owned()).collect()
}

// === refusals ===

#[test]
fn c_61_a_refusal_names_the_system_and_the_trace_id() {
    let reply = Reply::REFUSED.with_text("Not from there\nNor from here");
    let named = tracer(None).refusal(&reply, "18f3-2.1");
    assert_eq!(
        named.to_string(),
        "550 5.7.1 Not from there / Nor from here (https://mail.example.com/opes; id=18f3-2.1)"
    );
    let long = Reply::REFUSED.with_text("x".repeat(490));
    let named = tracer(None).refusal(&long, "18f3-2.1");
    assert_eq!(
        named.lines().last(),
        Some("(https://mail.example.com/opes; id=18f3-2.1)")
    );
    assert_eq!(named.lines().count(), 2);
}

// === bypass ===

#[test]
fn c_62_only_authenticated_requests_count() {
    let networks = vec!["192.0.2.0/24".parse().unwrap()];
    let config = |identities: &[&str]| BypassConfig {
        identities: words(identities),
        networks: networks.clone(),
    };
    let (near, far) = ("192.0.2.7".parse().unwrap(), "203.0.113.7".parse().unwrap());
    let mapped = "::ffff:192.0.2.7".parse().unwrap();
    let nobody = tracer(None);
    assert!(!nobody.may_bypass(near, Some("tim")));
    let tim = tracer(Some(config(&["tim"])));
    assert!(tim.may_bypass(far, Some("tim")) && !tim.may_bypass(far, Some("Tim")));
    assert!(tim.may_bypass(near, None) && tim.may_bypass(mapped, None));
    assert!(!tim.may_bypass(far, None));
    let all = tracer(Some(config(&["*"])));
    assert!(all.may_bypass(far, Some("ann")) && !all.may_bypass(far, None));
}

#[test]
fn c_62_parameter_and_field_are_one_request() {
    let tracer = tracer(None);
    let agents = Agents::new(&table(OBJECTS), &tracer.system);
    let field = |text: &str| Some(BypassRequest::parse_field(text.as_bytes()));
    let parameters = words(&["SIZE=1", "OpesBypass=https://translate.example.net/"]);
    let asked = Tracer::asked(&agents, true, &parameters, field("x"));
    let granted = asked.granted.unwrap();
    assert!(granted.covers("default/translate") && !granted.covers("default/scan"));
    let both = field("https://mail.example.com/opes/service/default/scan");
    let asked = Tracer::asked(&agents, true, &parameters, both);
    assert!(asked.granted.unwrap().covers("default/scan"));
    let asked = Tracer::asked(&agents, false, &parameters, None);
    assert_eq!((asked.granted, asked.refused), (None, Some("unauthorized")));
    let asked = Tracer::asked(&agents, true, &[], field("please"));
    assert_eq!((asked.granted, asked.refused), (None, Some("syntax")));
    let nothing = Tracer::asked(&agents, true, &words(&["SIZE=1"]), None);
    assert!(nothing.granted.is_none() && nothing.refused.is_none());
    assert!(is_readable(&parameters) && !is_readable(&words(&["OPESBYPASS=x"])));
}

#[test]
fn c_63_the_trace_says_what_became_of_a_request() {
    let tracer = tracer(None);
    let agents = Agents::new(&table(OBJECTS), &tracer.system);
    let all = Asked {
        granted: Some(Arc::new(Bypass::All)),
        refused: None,
    };
    let ran = ["default/scan", "default/scan", "gone/since"];
    let via = tracer.via("1", &agents, &all, &ran, &["default/translate"]);
    assert_eq!(
        via,
        "OPES-Via: https://mail.example.com/opes/processor/mail.example.com; id=1,\r\n\
         \thttps://mail.example.com/opes/service/default/scan; bypass=refused;\r\n\
         \treason=required, https://translate.example.net/; bypass=granted\r\n"
    );
}

// === sealing ===

/// A message as the edge has it: our field, then what the client sent.
async fn incoming(tracer: &Tracer, client: &str, dir: &Path) -> (Bytes, View) {
    let limits = Arc::new(Limits::in_dir(dir));
    let (mut writer, content) = opes_content::create(&Budget::new(1 << 20), &limits);
    let first = tracer.first_octets("18f3-2.1", &table(OBJECTS));
    writer.append(first.clone()).await.unwrap();
    // In small pieces, as slow clients send.
    for piece in client.as_bytes().chunks(7) {
        writer.append(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    writer.finish();
    (first, View::original(content))
}

async fn text(view: &View) -> String {
    let mut octets = Vec::new();
    view.write_to(&mut octets).await.unwrap();
    String::from_utf8(octets).unwrap()
}

struct Fixture {
    tracer: Tracer,
    agents: Agents,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let tracer = tracer(None);
        Self {
            agents: Agents::new(&table(OBJECTS), &tracer.system),
            tracer,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// `client`'s message after a service made `edits` of it.
    async fn seal(&self, client: &str, edits: Vec<Splice>, believed: bool) -> (String, Sealed) {
        let (first, view) = incoming(&self.tracer, client, self.dir.path()).await;
        let rope = Rope::identity(view.len_now()).splice_all(edits.clone());
        let rope = (!edits.is_empty()).then(|| rope.unwrap());
        let view = view.compose(rope).unwrap();
        let pass = Pass {
            tracer: &self.tracer,
            agents: &self.agents,
            id: "18f3-2.1",
            first_octets: &first,
            believed,
            may_bypass: false,
            parameters: &[],
            ran: &["default/scan"],
            bypassed: &[],
            received: "Received: x\r\n".to_owned(),
        };
        let sealed = seal(&view, &pass).await.unwrap();
        (text(&sealed.view).await, sealed)
    }

    fn first(&self) -> String {
        let first = self.tracer.first_octets("18f3-2.1", &table(OBJECTS));
        String::from_utf8(first.to_vec()).unwrap()
    }

    /// `Received`, `OPES-Via` and what comes below.
    fn below_top(&self, text: &str) -> String {
        let via = self.tracer.via(
            "18f3-2.1",
            &self.agents,
            &Asked::default(),
            &["default/scan"],
            &[],
        );
        let rest = text.strip_prefix("Received: x\r\n").unwrap();
        rest.strip_prefix(&via).unwrap().to_owned()
    }
}

fn splice(offset: u64, size: u64, replacement: &str) -> Splice {
    Splice {
        offset,
        size,
        replacement: Bytes::copy_from_slice(replacement.as_bytes()),
    }
}

#[tokio::test]
async fn c_59_trace_is_on_top_and_the_rest_as_it_came() {
    let fixture = Fixture::new();
    let (text, sealed) = fixture.seal(FROM_CLIENT, Vec::new(), false).await;
    assert_eq!(
        fixture.below_top(&text),
        format!("{}{FROM_CLIENT}", fixture.first())
    );
    assert!(!sealed.restored && sealed.forged == 0 && sealed.inherited == 0);
}

#[tokio::test]
async fn c_60_a_service_that_takes_our_field_out_does_not_succeed() {
    let fixture = Fixture::new();
    let whole = fixture.first().len() as u64;
    let edits = vec![splice(0, whole, "X-Clean: yes\r\n")];
    let (text, sealed) = fixture.seal(FROM_CLIENT, edits, false).await;
    assert_eq!(
        fixture.below_top(&text),
        format!("{}X-Clean: yes\r\n{FROM_CLIENT}", fixture.first())
    );
    assert!(sealed.restored);
}

#[tokio::test]
async fn c_60_a_service_that_writes_in_our_name_does_not_succeed() {
    let fixture = Fixture::new();
    let whole = fixture.first().len() as u64;
    for (forged, restored) in [
        (splice(0, 0, CLAIM), false),
        (splice(0, whole, CLAIM), true),
    ] {
        // Even if the client is one that we would believe.
        let (text, sealed) = fixture.seal(FROM_CLIENT, vec![forged], true).await;
        assert_eq!(
            fixture.below_top(&text),
            format!("{}{FROM_CLIENT}", fixture.first())
        );
        assert_eq!((sealed.restored, sealed.forged), (restored, 1));
    }
}

#[tokio::test]
async fn what_a_stranger_brings_in_our_name_goes_and_what_a_peer_brings_stays() {
    let fixture = Fixture::new();
    let client = format!("X-A: a\r\n{CLAIM}{FROM_CLIENT}");
    let (text, sealed) = fixture.seal(&client, Vec::new(), false).await;
    assert_eq!(
        fixture.below_top(&text),
        format!("{}X-A: a\r\n{FROM_CLIENT}", fixture.first())
    );
    assert_eq!((sealed.inherited, sealed.forged), (1, 0));
    let edit = vec![splice(0, 0, "X-Clean: yes\r\n")];
    let (text, sealed) = fixture.seal(&client, edit, true).await;
    assert_eq!(
        fixture.below_top(&text),
        format!("X-Clean: yes\r\n{}{client}", fixture.first())
    );
    assert_eq!((sealed.inherited, sealed.forged), (0, 0));
}

#[tokio::test]
async fn without_rules_there_is_no_trace_of_ours_and_no_forged_one() {
    let fixture = Fixture::new();
    assert!(
        fixture
            .tracer
            .first_octets("1", &RoutingTable::default())
            .is_empty()
    );
    let (mut writer, content) = opes_content::create(
        &Budget::new(1 << 20),
        &Arc::new(Limits::in_dir(fixture.dir.path())),
    );
    let message = format!("{CLAIM}{FROM_CLIENT}");
    writer.append(message.into()).await.unwrap();
    writer.finish();
    let pass = Pass {
        tracer: &fixture.tracer,
        agents: &Agents::default(),
        id: "1",
        first_octets: &Bytes::new(),
        believed: false,
        may_bypass: false,
        parameters: &[],
        ran: &[],
        bypassed: &[],
        received: "Received: x\r\n".to_owned(),
    };
    let sealed = seal(&View::original(content), &pass).await.unwrap();
    assert_eq!(
        text(&sealed.view).await,
        format!("Received: x\r\n{FROM_CLIENT}")
    );
}

#[tokio::test]
async fn a_hundred_passes_are_a_loop() {
    let fixture = Fixture::new();
    for field in ["Received: x\r\n", "OPES-System: urn:example:a\r\n"] {
        let (_, view) = incoming(&fixture.tracer, &field.repeat(100), fixture.dir.path()).await;
        let pass = Pass {
            tracer: &fixture.tracer,
            agents: &fixture.agents,
            id: "1",
            first_octets: &Bytes::new(),
            believed: false,
            may_bypass: false,
            parameters: &[],
            ran: &[],
            bypassed: &[],
            received: String::new(),
        };
        assert!(matches!(seal(&view, &pass).await, Err(SealError::Looping)));
    }
}
