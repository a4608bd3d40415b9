//! What content really is: a small table of signatures.
//!
//! Owns the names that `blockTypes` may use. Looks at decoded content only, whatever a header field claims. Never fails; content
//! that is in no row has no format.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

use crate::names;

/// One row: what a format is called, its media type, the group it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Name of its own, e.g. `pe`.
    pub name: &'static str,
    /// Media type, e.g. `application/x-msdownload`.
    pub media_type: &'static str,
    /// Group, e.g. `executable`.
    pub group: &'static str,
}

const fn format(name: &'static str, media_type: &'static str, group: &'static str) -> Format {
    Format {
        name,
        media_type,
        group,
    }
}

const PE: Format = format("pe", "application/x-msdownload", "executable");
const ELF: Format = format("elf", "application/x-executable", "executable");
const MACH_O: Format = format("mach-o", "application/x-mach-binary", "executable");
const JAVA_CLASS: Format = format("java-class", "application/java-vm", "executable");
const DEX: Format = format("dex", "application/vnd.android.dex", "executable");
const WASM: Format = format("wasm", "application/wasm", "executable");
const SHEBANG: Format = format("shebang", "text/x-shellscript", "script");
const LNK: Format = format("lnk", "application/x-ms-shortcut", "shortcut");
const ISO: Format = format("iso9660", "application/x-iso9660-image", "disk-image");
const VHD: Format = format("vhd", "application/x-vhd", "disk-image");
const VHDX: Format = format("vhdx", "application/x-vhdx", "disk-image");
const OOXML_MACRO: Format = format(
    "ooxml-macro",
    "application/vnd.ms-office.macroenabled",
    "office-macro",
);
pub(crate) const OLE2_MACRO: Format =
    format("ole2-macro", "application/x-ole-storage", "office-macro");
pub(crate) const OLE2: Format = format("ole2", "application/x-ole-storage", "document");
const ONENOTE: Format = format("onenote", "application/onenote", "document");
const PDF: Format = format("pdf", "application/pdf", "document");
const RTF: Format = format("rtf", "application/rtf", "document");
const HTML: Format = format("html", "text/html", "web");
const CHM: Format = format("chm", "application/vnd.ms-htmlhelp", "help");
pub(crate) const ZIP_ENCRYPTED: Format =
    format("zip-encrypted", "application/zip", "encrypted-archive");
const ZIP: Format = format("zip", "application/zip", "archive");
const RAR: Format = format("rar", "application/vnd.rar", "archive");
const SEVEN_ZIP: Format = format("7z", "application/x-7z-compressed", "archive");
const CAB: Format = format("cab", "application/vnd.ms-cab-compressed", "archive");
const GZIP: Format = format("gzip", "application/gzip", "archive");
const TNEF: Format = format("tnef", "application/ms-tnef", "archive");
const EICAR: Format = format("eicar", "application/x-eicar-test", "test-virus");

/// All rows.
pub const FORMATS: [Format; 27] = [
    PE,
    ELF,
    MACH_O,
    JAVA_CLASS,
    DEX,
    WASM,
    SHEBANG,
    LNK,
    ISO,
    VHD,
    VHDX,
    OOXML_MACRO,
    OLE2_MACRO,
    OLE2,
    ONENOTE,
    PDF,
    RTF,
    HTML,
    CHM,
    ZIP_ENCRYPTED,
    ZIP,
    RAR,
    SEVEN_ZIP,
    CAB,
    GZIP,
    TNEF,
    EICAR,
];

/// Signatures at the very start.
const SIGNATURES: [(&[u8], Format); 25] = [
    (b"MZ", PE),
    (b"\x7fELF", ELF),
    (b"\xfe\xed\xfa\xce", MACH_O),
    (b"\xfe\xed\xfa\xcf", MACH_O),
    (b"\xce\xfa\xed\xfe", MACH_O),
    (b"\xcf\xfa\xed\xfe", MACH_O),
    (b"\xca\xfe\xba\xbe\0\0\0\x02", MACH_O),
    (b"\xca\xfe\xba\xbe\0\0\0\x01", MACH_O),
    (b"\xca\xfe\xba\xbe", JAVA_CLASS),
    (b"dex\n", DEX),
    (b"\0asm", WASM),
    (b"L\0\0\0\x01\x14\x02\0", LNK),
    (b"vhdxfile", VHDX),
    (b"conectix", VHD),
    (OLE2_SIGNATURE, OLE2),
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", ONENOTE),
    (b"{\\rt", RTF),
    (b"ITSF", CHM),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"Rar!\x1a\x07", RAR),
    (b"7z\xbc\xaf\x27\x1c", SEVEN_ZIP),
    (b"MSCF", CAB),
    (b"\x1f\x8b", GZIP),
    (b"\x78\x9f\x3e\x22", TNEF),
];

const OLE2_SIGNATURE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";
/// ISO 9660: sector 16 of 2048 octets, then one octet of type.
const ISO_SIGNATURE_OFFSET: usize = 32_769;
/// Readers look for `%PDF-` in the first kilobyte.
const PDF_SEARCH_OCTETS: usize = 1024;
/// How far HTML may be preceded by white space and a byte order mark.
const HTML_SEARCH_OCTETS: usize = 512;
/// Most entries of an archive whose names are given, unless more are wanted.
pub const ARCHIVE_ENTRIES_MAX: usize = 10_000;

/// The EICAR test string (eicar.org), in two pieces so that no scanner takes this program for it.
const EICAR_HALVES: [&str; 2] = [
    "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD",
    "-ANTIVIRUS-TEST-FILE!$H+H*",
];
static EICAR_STRING: LazyLock<Finder<'static>> =
    LazyLock::new(|| Finder::new(EICAR_HALVES.concat().as_bytes()).into_owned());
/// `_VBA_PROJECT` as OLE2 directories have it, in UTF-16.
static VBA_STREAM: LazyLock<Finder<'static>> = LazyLock::new(|| {
    let name: Vec<u8> = "_VBA_PROJECT"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    Finder::new(&name).into_owned()
});

/// The format of decoded `content`; `None` for plain text and whatever is in no row.
pub fn detect(content: &[u8]) -> Option<Format> {
    if EICAR_STRING.find(content).is_some() {
        return Some(EICAR);
    }
    let known = SIGNATURES
        .iter()
        .find(|(signature, _)| content.starts_with(signature))
        .map(|(_, format)| *format);
    match known {
        Some(ZIP) => Some(zip_format(content)),
        Some(OLE2) if VBA_STREAM.find(content).is_some() => Some(OLE2_MACRO),
        // Two letters are little: an executable has its header size and an offset behind them.
        Some(PE) if !is_mz(content) => None,
        Some(format) => Some(format),
        None => detect_further_in(content),
    }
}

/// As [`detect`], but only what may stand anywhere in the content: for one window of many.
pub(crate) fn detect_anywhere(window: &[u8]) -> Option<Format> {
    EICAR_STRING.find(window).is_some().then_some(EICAR)
}

fn detect_further_in(content: &[u8]) -> Option<Format> {
    if content
        .get(ISO_SIGNATURE_OFFSET..)
        .is_some_and(|volume| volume.starts_with(b"CD001"))
    {
        return Some(ISO);
    }
    let text = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    if text.starts_with(b"#!") {
        return Some(SHEBANG);
    }
    let start = content.get(..PDF_SEARCH_OCTETS).unwrap_or(content);
    if memmem::find(start, b"%PDF-").is_some() {
        return Some(PDF);
    }
    is_html(text).then_some(HTML)
}

/// A text that begins with these two letters has no control characters right behind them.
fn is_mz(content: &[u8]) -> bool {
    let header = content
        .get(2..64)
        .unwrap_or_else(|| content.get(2..).unwrap_or_default());
    header.is_empty()
        || header
            .iter()
            .any(|octet| *octet < 9 || (14..32).contains(octet) || *octet >= 0x80)
}

fn is_html(text: &[u8]) -> bool {
    let start = text
        .get(..HTML_SEARCH_OCTETS)
        .unwrap_or(text)
        .trim_ascii_start()
        .to_ascii_lowercase();
    let openings: [&[u8]; 6] = [
        b"<!doctype html",
        b"<html",
        b"<head",
        b"<body",
        b"<script",
        b"<meta",
    ];
    openings.iter().any(|opening| start.starts_with(opening))
}

/// Central directory of a ZIP file: signature, then flags at 8, length of the name at 28, the name at 46.
const ZIP_DIRECTORY_SIGNATURE: &[u8] = b"PK\x01\x02";

fn zip_format(content: &[u8]) -> Format {
    let is_macro = |name: &str| name.to_ascii_lowercase().ends_with("vbaproject.bin");
    if archive_names(content, ARCHIVE_ENTRIES_MAX).any(|entry| is_macro(&entry)) {
        return OOXML_MACRO;
    }
    let is_encrypted = |entry: &[u8]| entry.get(8).is_some_and(|flags| flags & 1 != 0);
    let encrypted = zip_entries(content)
        .take(ARCHIVE_ENTRIES_MAX)
        .any(is_encrypted);
    if encrypted { ZIP_ENCRYPTED } else { ZIP }
}

fn zip_entries(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    memmem::find_iter(content, ZIP_DIRECTORY_SIGNATURE).filter_map(|at| content.get(at..))
}

/// Are there more than `max` of what [`archive_names`] reads?
pub(crate) fn has_more_names(content: &[u8], max: usize) -> bool {
    zip_entries(content).nth(max).is_some()
}

/// Names in the directory of a ZIP file, those of at most `max` entries; empty for other content.
pub fn archive_names(content: &[u8], max: usize) -> impl Iterator<Item = String> {
    let name = |entry: &[u8]| {
        let length = u16::from_le_bytes(entry.get(28..30)?.try_into().ok()?);
        Some(names::of_archive(entry.get(46..46 + usize::from(length))?))
    };
    zip_entries(content).take(max).filter_map(name).flatten()
}

/// Is this what an entry of `blockTypes` may be: a name or group of the table?
pub fn is_known(name: &str) -> bool {
    FORMATS
        .iter()
        .any(|format| format.name == name || format.group == name)
}

#[cfg(test)]
pub(crate) mod tests;
