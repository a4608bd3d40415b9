use super::*;

const NOW: u64 = 1_800_000_000;

fn stored(state: &Authorities) -> Authorities {
    let mut secret = Secret::default();
    state.write(&mut secret);
    Authorities::read(&secret).unwrap()
}

/// The state after the step that is due at `now`; it goes through the Secret, as after a restart.
fn step(state: &Authorities, now: u64, written: bool) -> Option<Authorities> {
    let next = state
        .next_step(now, &Lifetimes::default(), written)
        .unwrap();
    next.map(|next| stored(&next))
}

#[test]
fn a_rotation_announces_then_switches_then_forgets() {
    let lifetimes = Lifetimes::default();
    let first = Authorities::begin(NOW, &lifetimes).unwrap();
    assert_eq!(stored(&first), first);
    assert_eq!(step(&first, NOW + 86_400, true), None);
    let due = NOW + lifetimes.authority.as_secs() * 2 / 3;
    let announced = step(&first, due, true).unwrap();
    let next = announced.next.clone().unwrap();
    assert_eq!(announced.issuer, first.issuer);
    assert_eq!(
        announced.trusted,
        [first.issuer.certificate.clone(), next.certificate.clone()]
    );

    assert_eq!(step(&announced, due + 599, true), None);
    let switched = step(&announced, due + 600, true).unwrap();
    assert_eq!(switched.issuer, next);
    assert_eq!(
        switched.trusted,
        [next.certificate.clone(), first.issuer.certificate.clone()]
    );
    assert_eq!(step(&switched, due + 600 + 86_399, true), None);
    let done = step(&switched, due + 600 + 86_400, true).unwrap();
    assert_eq!((done.step, &done.next), (Step::Steady, &None));
    assert_eq!(done.trusted, [next.certificate]);
    let prints = [&first, &announced, &switched, &done].map(Authorities::fingerprint);
    assert!(prints.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn a_step_waits_for_certificates_but_not_for_ever() {
    let mut state = Authorities::begin(NOW, &Lifetimes::default()).unwrap();
    state.asked = true;
    let announced = step(&state, NOW, false).unwrap();
    assert!(!announced.asked);
    assert_eq!(step(&announced, NOW + 601, false), None);
    assert!(step(&announced, NOW + 601, true).is_some());
    assert!(step(&announced, NOW + 600 + 86_400, false).is_some());
}

#[test]
fn a_rotation_asked_for_in_another_one_follows_it() {
    let mut state = Authorities::begin(NOW, &Lifetimes::default()).unwrap();
    state.asked = true;
    let mut announced = step(&state, NOW, true).unwrap();
    announced.asked = true;
    let mut secret = Secret::default();
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(ROTATE.into(), "now".into());
    annotations.insert("example.com/kept".into(), "1".into());
    announced.write(&mut secret);
    let read = Authorities::read(&secret).unwrap();
    assert!(read.asked);
    let switched = read
        .next_step(NOW + 600, &Lifetimes::default(), true)
        .unwrap()
        .unwrap();
    assert!(switched.asked && matches!(switched.step, Step::Switched(_)));
    switched.write(&mut secret);
    let annotations = secret.metadata.annotations.unwrap();
    assert!(annotations.contains_key(ROTATE) && annotations.contains_key("example.com/kept"));
}

#[test]
fn an_expired_authority_is_not_waited_for() {
    let lifetimes = Lifetimes {
        authority: Duration::from_mins(1),
        ..Lifetimes::default()
    };
    let state = Authorities::begin(NOW, &lifetimes).unwrap();
    let announced = state
        .next_step(NOW + 50, &lifetimes, true)
        .unwrap()
        .unwrap();
    let due = announced.due(NOW + 50, &lifetimes, false);
    assert_eq!(due, NOW + 60);
}

#[test]
fn what_cannot_be_used_is_named() {
    let state = Authorities::begin(NOW, &Lifetimes::default()).unwrap();
    for missing in ["tls.crt", "tls.key", "ca.crt"] {
        let mut secret = Secret::default();
        state.write(&mut secret);
        secret.data.as_mut().unwrap().remove(missing);
        let error = Authorities::read(&secret).unwrap_err().to_string();
        assert_eq!(error, format!("{missing} is missing or no text"));
    }
    let mut secret = Secret::default();
    state.write(&mut secret);
    let data = secret.data.as_mut().unwrap();
    data.insert("tls.key".into(), ByteString(b"x".to_vec()));
    let error = Authorities::read(&secret).unwrap_err().to_string();
    assert!(
        error.starts_with("tls.crt: the key cannot be used"),
        "{error}"
    );
}
