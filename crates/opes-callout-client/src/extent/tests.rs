use super::*;
use opes_proto::smtp::Part;

const MESSAGE: &[u8] = b"Subject: a\r\nTo: b\r\n\r\nbody\r\n\r\nmore\r\n";
const HEADER_OCTETS: usize = 21;

fn run(extent: Extent, message: &'static [u8], step: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut header, mut body) = (Vec::new(), Vec::new());
    let mut cursor = Cursor::new(extent);
    for chunk in message.chunks(step) {
        for fragment in cursor.take(Bytes::from_static(chunk)).into_iter().flatten() {
            match fragment.part {
                Part::Header => header.extend_from_slice(&fragment.octets),
                _ => body.extend_from_slice(&fragment.octets),
            }
        }
        if cursor.is_satisfied() {
            break;
        }
    }
    assert_eq!(cursor.offset(), (header.len() + body.len()) as u64);
    (header, body)
}

#[test]
fn the_lesser_of_both_wants() {
    use ContentWant as W;
    assert_eq!(Extent::least(W::None, W::All), Extent::NONE);
    assert_eq!(Extent::least(W::Prefix(0), W::Unspecified), Extent::NONE);
    assert_eq!(Extent::least(W::Prefix(9), W::Prefix(7)).octets, 7);
    assert_eq!(
        Extent::least(W::Header, W::All).announced(),
        smtp::ContentWant::Header
    );
    assert_eq!(
        Extent::least(W::Unspecified, W::Unspecified).announced(),
        smtp::ContentWant::All
    );
    assert_eq!(
        Extent::least(W::All, W::Prefix(3)).announced(),
        smtp::ContentWant::Prefix
    );
}

#[test]
fn header_and_body_are_told_apart_whatever_the_chunks() {
    for step in 1..=MESSAGE.len() {
        let all = Extent::least(ContentWant::All, ContentWant::Unspecified);
        let (header, body) = run(all, MESSAGE, step);
        assert_eq!(header, &MESSAGE[..HEADER_OCTETS], "step {step}");
        assert_eq!(body, &MESSAGE[HEADER_OCTETS..], "step {step}");
        let only = Extent::least(ContentWant::All, ContentWant::Header);
        assert_eq!(
            run(only, MESSAGE, step),
            (MESSAGE[..HEADER_OCTETS].to_vec(), vec![])
        );
        let some = Extent::least(ContentWant::Prefix(25), ContentWant::All);
        assert_eq!(run(some, MESSAGE, step).1, b"body");
        let both = Extent::least(ContentWant::Prefix(5), ContentWant::Header);
        assert_eq!(run(both, MESSAGE, step).0, b"Subje");
    }
}

#[test]
fn a_message_without_a_header_has_an_empty_first_line() {
    for step in 1..6 {
        let all = Extent::least(ContentWant::All, ContentWant::All);
        assert_eq!(
            run(all, b"\r\nbody", step),
            (b"\r\n".to_vec(), b"body".to_vec()),
            "{step}"
        );
    }
}

#[test]
fn a_message_without_a_body_is_all_header() {
    let all = Extent::least(ContentWant::All, ContentWant::All);
    assert_eq!(run(all, b"A: b\r\n", 2), (b"A: b\r\n".to_vec(), vec![]));
}
