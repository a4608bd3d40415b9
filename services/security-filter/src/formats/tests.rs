use super::*;
use proptest::prelude::*;

/// The EICAR test file.
pub(crate) fn eicar() -> String {
    EICAR_HALVES.concat()
}

/// A minimal executable for Windows: a DOS header that points to `PE\0\0`.
pub(crate) fn pe() -> Vec<u8> {
    let mut file = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0".to_vec();
    file.resize(60, 0);
    file.extend_from_slice(b"\x80\0\0\0");
    file.resize(128, 0);
    file.extend_from_slice(b"PE\0\0L\x01");
    file
}

/// A ZIP file with entries of these names and no content.
pub(crate) fn zip(names: &[&str], flags: u8) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for name in names {
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        file.extend_from_slice(b"PK\x03\x04\x14\0");
        file.extend_from_slice(&[flags, 0]);
        file.extend_from_slice(&[0; 18]);
        file.extend_from_slice(&[length[0], length[1], 0, 0]);
        file.extend_from_slice(name.as_bytes());
        directory.extend_from_slice(b"PK\x01\x02\x14\0\x14\0");
        directory.extend_from_slice(&[flags, 0]);
        directory.extend_from_slice(&[0; 18]);
        directory.extend_from_slice(&[length[0], length[1]]);
        directory.extend_from_slice(&[0; 16]);
        directory.extend_from_slice(name.as_bytes());
    }
    file.extend_from_slice(&directory);
    file.extend_from_slice(b"PK\x05\x06");
    file.resize(file.len() + 18, 0);
    file
}

fn named(content: &[u8]) -> &'static str {
    detect(content).map_or("", |format| format.name)
}

#[test]
fn every_format_is_detected() {
    let mut iso = vec![0; ISO_SIGNATURE_OFFSET];
    iso.extend_from_slice(b"CD001");
    let vba: Vec<u8> = "_VBA_PROJECT"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let (ole, zips) = (OLE2_SIGNATURE.to_vec(), zip(&["word/document.xml"], 0));
    for (content, name) in [
        (pe(), "pe"),
        (b"\x7fELF\x02\x01".to_vec(), "elf"),
        (b"\xcf\xfa\xed\xfe\x07".to_vec(), "mach-o"),
        (b"\xca\xfe\xba\xbe\0\0\0\x02".to_vec(), "mach-o"),
        (b"\xca\xfe\xba\xbe\0\0\0\x34".to_vec(), "java-class"),
        (b"dex\n035\0".to_vec(), "dex"),
        (b"\0asm\x01".to_vec(), "wasm"),
        (b"#!/bin/sh\nrm".to_vec(), "shebang"),
        (b"\xef\xbb\xbf#!/bin/sh".to_vec(), "shebang"),
        (b"L\0\0\0\x01\x14\x02\0\0".to_vec(), "lnk"),
        (iso, "iso9660"),
        (b"conectix\0".to_vec(), "vhd"),
        (b"vhdxfile".to_vec(), "vhdx"),
        (
            zip(&["[Content_Types].xml", "word/vbaProject.bin"], 0),
            "ooxml-macro",
        ),
        ([ole.clone(), vba].concat(), "ole2-macro"),
        (ole, "ole2"),
        (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d".to_vec(), "onenote"),
        (b"junk\n%PDF-1.7".to_vec(), "pdf"),
        (b"{\\rtf1".to_vec(), "rtf"),
        (b"\r\n <!DOCTYPE HTML>".to_vec(), "html"),
        (b"ITSF\x03".to_vec(), "chm"),
        (zip(&["a"], 1), "zip-encrypted"),
        (zips, "zip"),
        (b"Rar!\x1a\x07\x01".to_vec(), "rar"),
        (b"7z\xbc\xaf\x27\x1c".to_vec(), "7z"),
        (b"MSCF\0".to_vec(), "cab"),
        (b"\x1f\x8b\x08".to_vec(), "gzip"),
        (b"\x78\x9f\x3e\x22".to_vec(), "tnef"),
        (
            format!("text before {} and after", eicar()).into_bytes(),
            "eicar",
        ),
    ] {
        assert_eq!(named(&content), name);
    }
    assert!(
        FORMATS
            .iter()
            .all(|format| is_known(format.name) && is_known(format.group))
    );
}

#[test]
fn text_has_no_format() {
    for text in [
        "",
        "MZ is how Mozart signed",
        "Hello #! world",
        "PK",
        "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X",
    ] {
        assert_eq!(named(text.as_bytes()), "", "{text}");
    }
}

#[test]
fn archive_directories_are_read() {
    let names: Vec<String> = archive_names(&zip(&["a.txt", "dir/b.exe"], 0), 10).collect();
    assert_eq!(names, ["a.txt", "dir/b.exe"]);
    assert_eq!(archive_names(b"PK\x01\x02 cut", 10).count(), 0);
}

proptest! {
    #[test]
    fn never_panics(start in prop_oneof![Just(b"PK\x03\x04PK\x01\x02".to_vec()), Just(b"MZ".to_vec()), Just(Vec::new())],
                    rest in proptest::collection::vec(any::<u8>(), 0..200)) {
        let content = [start, rest].concat();
        detect(&content);
        archive_names(&content, 10).count();
    }
}
