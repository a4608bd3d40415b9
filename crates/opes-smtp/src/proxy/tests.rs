//! PROXY headers of both versions, in pieces, and malformed.

use proptest::prelude::*;

use super::*;

fn v2(version_command: u8, transport: u8, body: &[u8]) -> Vec<u8> {
    let octets = u16::try_from(body.len()).unwrap().to_be_bytes();
    [
        &V2_SIGNATURE[..],
        &[version_command, transport],
        &octets,
        body,
    ]
    .concat()
}

fn proxied(source: &str, destination: &str) -> Header {
    Header::Proxied {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn done(input: &[u8]) -> (usize, Header) {
    match parse(input) {
        Ok(Parsed::Done { consumed, header }) => (consumed, header),
        other => panic!("{other:?}"),
    }
}

#[test]
fn version_1() {
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\nEHLO";
    assert_eq!(
        done(header),
        (44, proxied("192.0.2.1:56324", "198.51.100.1:25"))
    );
    let header = b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 25\r\n";
    assert_eq!(
        done(header).1,
        proxied("[2001:db8::1]:56324", "[2001:db8::2]:25")
    );
    assert_eq!(done(b"PROXY UNKNOWN\r\n"), (15, Header::Local));
    assert_eq!(
        done(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n").1,
        Header::Local
    );
}

#[test]
fn version_1_malformed() {
    for text in [
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25 x\r\n",
        "PROXY TCP4 2001:db8::1 198.51.100.1 56324 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 65536 25\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.1 1 25\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(parse(text.as_bytes()), Err(ProxyError::Syntax), "{text}");
    }
    assert_eq!(
        parse(format!("PROXY {}", "x".repeat(110)).as_bytes()),
        Err(ProxyError::TooLong)
    );
    assert_eq!(parse(b"EHLO example.com\r\n"), Err(ProxyError::Missing));
    assert_eq!(parse(b"PROXIMITY"), Err(ProxyError::Missing));
}

#[test]
fn version_2() {
    let body = [
        192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0, 25, /* extension */ 4, 0, 1, 0,
    ];
    let header = v2(0x21, 0x11, &body);
    assert_eq!(
        done(&header),
        (32, proxied("192.0.2.1:56324", "198.51.100.1:25"))
    );
    assert_eq!(done(&v2(0x20, 0, &[])), (16, Header::Local));
    assert_eq!(done(&v2(0x21, 0, &[1, 2, 3])), (19, Header::Local));
    let six = [
        &[0x20, 1, 0x0d, 0xb8][..],
        &[0; 11],
        &[1],
        &[0; 15],
        &[2],
        &[0, 9, 0, 25],
    ]
    .concat();
    assert_eq!(
        done(&v2(0x21, 0x21, &six)).1,
        proxied("[2001:db8::1]:9", "[::2]:25")
    );
}

#[test]
fn version_2_malformed() {
    assert_eq!(parse(&v2(0x21, 0x11, &[0; 11])), Err(ProxyError::Syntax));
    assert_eq!(parse(&v2(0x11, 0x11, &[0; 12])), Err(ProxyError::Unknown));
    assert_eq!(parse(&v2(0x22, 0x11, &[0; 12])), Err(ProxyError::Unknown));
    assert_eq!(parse(&v2(0x21, 0x12, &[0; 12])), Err(ProxyError::Unknown));
    assert_eq!(parse(&v2(0x21, 0x11, &[0; 5000])), Err(ProxyError::TooLong));
}

#[test]
fn every_prefix_of_a_header_needs_more() {
    for header in [
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n".to_vec(),
        v2(0x21, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 0, 1, 0, 25]),
    ] {
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(Parsed::NeedMore), "{end}");
        }
        assert_eq!(done(&header).0, header.len());
    }
}

#[test]
fn only_named_networks_are_trusted() {
    let trusted = TrustedProxies::new(vec!["192.0.2.0/24".parse().unwrap()]);
    assert!(trusted.contains("192.0.2.7".parse().unwrap()));
    assert!(trusted.contains("::ffff:192.0.2.7".parse().unwrap()));
    assert!(!trusted.contains("198.51.100.1".parse().unwrap()));
    assert!(!TrustedProxies::default().contains("127.0.0.1".parse().unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn never_panics(v2_form: bool, octets in proptest::collection::vec(any::<u8>(), 0..80)) {
        let prefix = if v2_form { &V2_SIGNATURE[..] } else { V1_PREFIX };
        let _ = parse(&[prefix, &octets].concat());
    }
}
