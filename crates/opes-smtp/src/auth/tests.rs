//! PLAIN and LOGIN exchanges.

use super::*;

fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

fn start(mechanism: Mechanism, initial: Option<&str>) -> (Exchange, Step) {
    Exchange::start(mechanism, initial.map(SecretString::from).as_ref())
}

fn credentials_of(step: Step) -> (String, String) {
    match step {
        Step::Credentials(found) => (found.identity, found.password.expose_secret().to_owned()),
        other => panic!("{other:?}"),
    }
}

fn refusal_of(step: Step) -> Reply {
    match step {
        Step::Failed(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_with_and_without_initial_response() {
    let response = encode("\0tim\0tanstaaftanstaaf");
    let expected = ("tim".to_owned(), "tanstaaftanstaaf".to_owned());
    let (_, step) = start(Mechanism::Plain, Some(&response));
    assert_eq!(credentials_of(step), expected);
    let (mut exchange, step) = start(Mechanism::Plain, None);
    assert!(matches!(step, Step::Challenge(reply) if reply == Reply::CHALLENGE));
    assert_eq!(credentials_of(exchange.line(response.as_bytes())), expected);
}

#[test]
fn plain_acts_for_nobody_else() {
    let plain = |text: &str| start(Mechanism::Plain, Some(&encode(text))).1;
    assert_eq!(credentials_of(plain("tim\0tim\0pw")).0, "tim");
    assert_eq!(
        refusal_of(plain("root\0tim\0pw")),
        Reply::AUTHENTICATION_FAILED
    );
    for wrong in [
        "",
        "tim",
        "\0tim",
        "\0\0pw",
        "\0tim\0",
        "\0tim\0a\0b",
        "\0ti\nm\0pw",
    ] {
        assert_eq!(
            refusal_of(plain(wrong)),
            Reply::AUTHENTICATION_SYNTAX,
            "{wrong:?}"
        );
    }
}

#[test]
fn login_asks_for_name_and_password() {
    let (mut exchange, step) = start(Mechanism::Login, None);
    assert!(matches!(step, Step::Challenge(reply) if reply.lines().eq(["VXNlcm5hbWU6"])));
    let step = exchange.line(encode("tim").as_bytes());
    assert!(matches!(step, Step::Challenge(reply) if reply.lines().eq(["UGFzc3dvcmQ6"])));
    let (name, password) = credentials_of(exchange.line(encode("pw").as_bytes()));
    assert_eq!((name.as_str(), password.as_str()), ("tim", "pw"));
}

#[test]
fn login_takes_the_name_as_initial_response() {
    let (mut exchange, step) = start(Mechanism::Login, Some(&encode("tim")));
    assert!(matches!(step, Step::Challenge(_)));
    assert_eq!(
        credentials_of(exchange.line(encode("pw").as_bytes())).0,
        "tim"
    );
    assert_eq!(
        refusal_of(start(Mechanism::Login, Some("=")).1),
        Reply::AUTHENTICATION_SYNTAX
    );
}

#[test]
fn exchanges_are_cancelled_and_malformed() {
    let (mut exchange, _) = start(Mechanism::Login, None);
    assert_eq!(
        refusal_of(exchange.line(b"*")),
        Reply::AUTHENTICATION_CANCELLED
    );
    let (mut exchange, _) = start(Mechanism::Plain, None);
    assert_eq!(
        refusal_of(exchange.line(b"not base64!")),
        Reply::AUTHENTICATION_SYNTAX
    );
    let (mut exchange, _) = start(Mechanism::Plain, None);
    assert_eq!(
        refusal_of(exchange.line(STANDARD.encode([0xff, 0, 1]).as_bytes())),
        Reply::AUTHENTICATION_SYNTAX
    );
}

#[test]
fn passwords_are_not_in_debug_output() {
    let (_, step) = start(Mechanism::Plain, Some(&encode("\0tim\0sesame")));
    assert!(!format!("{step:?}").contains("sesame"));
}
