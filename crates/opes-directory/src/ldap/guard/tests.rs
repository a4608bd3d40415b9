use proptest::prelude::*;

use super::*;

pub(in crate::ldap) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let mut wrapped = vec![tag, 0x84];
    wrapped.extend(length);
    wrapped.extend(content);
    wrapped
}

/// An answer with this as its operation.
pub(in crate::ldap) fn message(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut all = vec![INTEGER, 1, 1];
    all.extend(wrap(tag, content));
    wrap(SEQUENCE, &all)
}

fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(vec![4, 0], |inner, _| wrap(SEQUENCE, &inner))
}

fn depth(content: &[u8]) -> usize {
    let mut deepest = 0;
    let mut rest = content;
    while let Some((tag, inner, behind)) = element(rest) {
        if tag & CONSTRUCTED != 0 {
            deepest = deepest.max(depth(inner) + 1);
        }
        rest = behind;
    }
    deepest
}

async fn passed(octets: &[u8], max: usize) -> (Vec<u8>, Option<Fault>) {
    let guard = Guard::default();
    guard.allow(max);
    let mut network = octets;
    let mut library = Vec::new();
    guard.pass(&mut network, &mut library).await;
    (library, guard.fault())
}

#[tokio::test]
async fn whole_answers_pass_as_they_are() {
    // End of a search: success, no DN, no text. The short form of lengths, as servers have it.
    let done = [0x30, 0x0c, 2, 1, 2, 0x65, 7, 10, 1, 0, 4, 0, 4, 0];
    let mut both = done.to_vec();
    both.extend(message(0x64, &nested(3)));
    let (library, fault) = passed(&both, 1000).await;
    assert_eq!((library, fault), (both.clone(), Some(Fault::Closed)));
    // Half a message never reaches the library.
    let (library, fault) = passed(&both[..20], 1000).await;
    assert_eq!((library, fault), (done.to_vec(), Some(Fault::Closed)));
}

#[tokio::test]
async fn what_would_harm_the_library_does_not_reach_it() {
    let deep = message(0x64, &nested(10_000));
    let indefinite = [0x30, 0x80, 2, 1, 1];
    let huge = [0x30, 0x84, 0xff, 0xff, 0xff, 0xff];
    let longer = [0x30, 0x88, 0, 0, 0, 0, 0, 0, 0, 1];
    let unknown = message(0x66, &[]);
    let no_number = wrap(SEQUENCE, &wrap(0x65, &[]));
    let overlong = wrap(SEQUENCE, &[2, 1, 1, 0x65, 9, 0]);
    for (octets, expected) in [
        (&deep[..], Fault::TooDeep),
        (&indefinite, Fault::Malformed),
        (&huge, Fault::TooLarge),
        (&longer, Fault::Malformed),
        (&unknown, Fault::Malformed),
        (&no_number, Fault::Malformed),
        (&overlong, Fault::Malformed),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Fault::Malformed),
    ] {
        let (library, fault) = passed(octets, 1 << 20).await;
        assert_eq!((library, fault), (vec![], Some(expected)), "{octets:x?}");
    }
}

#[tokio::test]
async fn what_is_allowed_while_it_waits_counts() {
    let done = message(0x65, &[10, 1, 0, 4, 0, 4, 0]);
    let guard = Guard::default();
    let (mut theirs, mut network) = tokio::io::duplex(100);
    let mut library = Vec::new();
    let pass = guard.pass(&mut network, &mut library);
    let server = async {
        // The guard waits already, with nothing allowed.
        tokio::task::yield_now().await;
        guard.allow(done.len());
        theirs.write_all(&done).await.unwrap();
        theirs.write_all(&done).await.unwrap();
    };
    tokio::join!(pass, server);
    assert_eq!((library, guard.fault()), (done, Some(Fault::TooLarge)));
}

#[tokio::test]
async fn many_small_messages_are_too_large_together() {
    let one = message(0x64, &nested(2));
    let (library, fault) = passed(&one.repeat(100), one.len() * 3 + 1).await;
    assert_eq!(library, one.repeat(3));
    assert_eq!(fault, Some(Fault::TooLarge));
}

proptest! {
    #[test]
    fn any_octets_are_bounded(octets in proptest::collection::vec(any::<u8>(), 0..300), max in 0usize..400) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (library, fault) = runtime.block_on(passed(&octets, max));
        prop_assert!(library.len() <= max && octets.starts_with(&library));
        prop_assert!(fault.is_some());
    }

    #[test]
    fn what_passes_is_shallow(inner in proptest::collection::vec(any::<u8>(), 0..200), tag in any::<u8>()) {
        let octets = message(tag, &inner);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (library, _) = runtime.block_on(passed(&octets, 1000));
        prop_assert!(depth(&library) <= DEPTH_MAX);
    }
}
