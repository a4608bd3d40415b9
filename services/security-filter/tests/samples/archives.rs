//! Archives for tests, also such as no program writes.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "shared by test programs, each of which takes what it needs"
)]

use std::io::Write as _;

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compress, Compression, FlushCompress};

/// One mebibyte.
pub const MIB: usize = 1024 * 1024;

/// A file in a ZIP archive; what stands in both headers if a field does not say otherwise.
#[derive(Debug, Clone)]
pub struct File {
    /// In the directory.
    pub name: String,
    /// In front of the file.
    pub local_name: String,
    /// Likewise.
    pub method: u16,
    pub local_method: u16,
    pub flags: u16,
    /// As it stands in the archive.
    pub packed: Vec<u8>,
    /// Without a line in the directory.
    pub is_stray: bool,
}

pub fn stored(name: &str, content: &[u8]) -> File {
    File {
        name: name.to_owned(),
        local_name: name.to_owned(),
        method: 0,
        local_method: 0,
        flags: 0,
        packed: content.to_vec(),
        is_stray: false,
    }
}

pub fn deflated(name: &str, content: &[u8]) -> File {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    packed(name, encoder.finish().unwrap())
}

/// Already deflated.
pub fn packed(name: &str, content: Vec<u8>) -> File {
    File {
        packed: content,
        method: 8,
        local_method: 8,
        ..stored(name, b"")
    }
}

pub fn zip(files: &[File]) -> Vec<u8> {
    let (mut archive, mut directory, mut count) = (Vec::new(), Vec::new(), 0);
    for file in files {
        if !file.is_stray {
            directory.extend(central(file, archive.len(), file.packed.len()));
            count += 1;
        }
        archive.extend(local(file, file.packed.len()));
        archive.extend_from_slice(&file.packed);
    }
    end(archive, &directory, count)
}

fn end(mut archive: Vec<u8>, directory: &[u8], count: u16) -> Vec<u8> {
    let offset = archive.len();
    archive.extend_from_slice(directory);
    archive.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    archive.extend_from_slice(&[count.to_le_bytes(), count.to_le_bytes()].concat());
    archive.extend_from_slice(&long(directory.len()));
    archive.extend_from_slice(&long(offset));
    archive.extend_from_slice(&[0, 0]);
    archive
}

fn long(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap().to_le_bytes()
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap().to_le_bytes()
}

pub fn local(file: &File, size: usize) -> Vec<u8> {
    let mut header = b"PK\x03\x04\x14\0".to_vec();
    header.extend_from_slice(&file.flags.to_le_bytes());
    header.extend_from_slice(&file.local_method.to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    header.extend_from_slice(&[long(size), long(size)].concat());
    header.extend_from_slice(&[short(file.local_name.len()), [0, 0]].concat());
    header.extend_from_slice(file.local_name.as_bytes());
    header
}

fn central(file: &File, offset: usize, size: usize) -> Vec<u8> {
    let mut header = b"PK\x01\x02\x14\0\x14\0".to_vec();
    header.extend_from_slice(&file.flags.to_le_bytes());
    header.extend_from_slice(&file.method.to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    header.extend_from_slice(&[long(size), long(size)].concat());
    header.extend_from_slice(&short(file.name.len()));
    header.extend_from_slice(&[0; 12]);
    header.extend_from_slice(&long(offset));
    header.extend_from_slice(file.name.as_bytes());
    header
}

pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// So many mebibytes of zeros, deflated to about a thousandth: one mebibyte, repeated.
pub fn zeros(mebibytes: usize) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut one = Vec::with_capacity(MIB);
    let zeros = vec![0; MIB];
    compress
        .compress_vec(&zeros, &mut one, FlushCompress::Full)
        .unwrap();
    let mut all = one.repeat(mebibytes);
    // An empty last block.
    all.extend_from_slice(&[3, 0]);
    all
}

/// Files that share one kernel, each with the headers of those behind it inside (D. Fifield, WOOT 2019).
pub fn overlapping(files: usize, kernel: &[u8]) -> Vec<u8> {
    let file = |index: usize| packed(&format!("{index:04}"), Vec::new());
    let header = local(&file(0), 0).len();
    let step = header + 5;
    let data_end = files * step - 5 + kernel.len();
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for index in 0..files {
        let start = index * step;
        let size = data_end - start - header;
        directory.extend(central(&file(index), start, size));
        archive.extend(local(&file(index), size));
        if index + 1 < files {
            // A stored block that quotes the next header.
            archive
                .extend_from_slice(&[&[0][..], &short(header), &short(!header & 0xffff)].concat());
        }
    }
    archive.extend_from_slice(kernel);
    end(archive, &directory, u16::try_from(files).unwrap())
}
