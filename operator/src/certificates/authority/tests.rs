use rustls_pki_types::{ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::*;

const NOW: u64 = 1_800_000_000;
const DAY: Duration = Duration::from_hours(24);

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn verify(leaf: &Leaf, authority: &Authority, at: u64, name: &str) -> Result<(), webpki::Error> {
    let (leaf, root) = (der(&leaf.certificate), der(&authority.certificate));
    let anchors = [anchor_from_trusted_cert(&root).unwrap()];
    let leaf = EndEntityCert::try_from(&leaf).unwrap();
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(at)),
            usage,
            None,
            None,
        )?;
    }
    leaf.verify_is_valid_for_subject_name(&ServerName::try_from(name).unwrap())
}

#[test]
fn what_an_authority_signs_is_good_for_its_time_and_names_only() {
    let authority = Authority::make(NOW, 100 * DAY).unwrap();
    let names = ["opes-scan.mail.svc".to_owned(), "b.example.com".to_owned()];
    let leaf = authority.issue(&names, NOW, 10 * DAY).unwrap();
    for name in ["opes-scan.mail.svc", "b.example.com"] {
        verify(&leaf, &authority, NOW - 60, name).unwrap();
        verify(&leaf, &authority, NOW + 9 * 86_400, name).unwrap();
    }
    assert!(verify(&leaf, &authority, NOW, "opes-other.mail.svc").is_err());
    assert!(verify(&leaf, &authority, NOW + 11 * 86_400, "b.example.com").is_err());
    let other = Authority::make(NOW, 100 * DAY).unwrap();
    assert!(verify(&leaf, &other, NOW, "b.example.com").is_err());
    assert_ne!(other.common_name, authority.common_name);
    let late = authority.issue(&names, NOW, 1_000 * DAY).unwrap();
    assert_eq!(late.not_after, authority.not_after);
}

#[test]
fn an_authority_is_read_again_and_goes_on_signing() {
    let made = Authority::make(NOW, 100 * DAY).unwrap();
    let read = Authority::read(&made.certificate, &made.key).unwrap();
    assert_eq!(read, made);
    assert_eq!(
        (read.not_before, read.not_after),
        (NOW - 300, NOW + 8_640_000)
    );
    let leaf = read.issue(&["a.example.com".into()], NOW, DAY).unwrap();
    verify(&leaf, &made, NOW, "a.example.com").unwrap();
    assert!(!format!("{read:?} {leaf:?}").contains("PRIVATE"));
}

#[test]
fn what_is_no_authority_of_ours_is_refused() {
    let (one, other) = (
        Authority::make(NOW, DAY).unwrap(),
        Authority::make(NOW, DAY).unwrap(),
    );
    let refusal = |certificate: &str, key: &str| {
        let error = Authority::read(certificate, key).unwrap_err();
        error.to_string()
    };
    assert!(refusal(&one.certificate, &other.key).contains("another certificate"));
    assert!(refusal("", &one.key).contains("cannot be read"));
    assert!(refusal(&one.certificate, "").contains("key cannot be used"));
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "x");
    let key = KeyPair::generate().unwrap();
    let foreign = params.self_signed(&key).unwrap().pem();
    assert!(refusal(&foreign, &key.serialize_pem()).contains("cert-manager"));
    assert!(one.issue(&[], NOW, DAY).is_err());
    assert!(
        one.issue(&vec!["a.example.com".into(); 33], NOW, DAY)
            .is_err()
    );
}

#[test]
fn bundles_are_split() {
    let (one, other) = (
        Authority::make(NOW, DAY).unwrap().certificate,
        Authority::make(NOW, DAY).unwrap().certificate,
    );
    let bundle = format!("# old\n{one}\n{other}");
    assert_eq!(split(&bundle), [one, other]);
    assert!(split("-----BEGIN CERTIFICATE-----\nhalf").is_empty());
}
