//! Authorities of the test's own, and certificates of every kind from them.

use std::fs;
use std::path::Path;

use opes_callout_client::MutualFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a certificate is for.
#[derive(Clone, Copy)]
pub(crate) enum For {
    Service,
    Edge,
}

/// A certificate and its key in PEM.
pub(crate) struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let distinguished = rcgen::DnType::CommonName;
        params.distinguished_name.push(distinguished, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, what: For, names: &[&str]) -> Pair {
        self.issue_with(what, names, |_| ())
    }

    pub(crate) fn issue_expired(&self, what: For, names: &[&str]) -> Pair {
        self.issue_with(what, names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    fn issue_with(
        &self,
        what: For,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![match what {
            For::Service => ExtendedKeyUsagePurpose::ServerAuth,
            For::Edge => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// One end's three files.
pub(crate) fn files(folder: &Path, end: &str) -> MutualFiles {
    MutualFiles {
        certificate: folder.join(format!("{end}.crt")),
        key: folder.join(format!("{end}.key")),
        ca: folder.join(format!("{end}.ca")),
    }
}

/// Writes all three, each by rename.
pub(crate) fn install(files: &MutualFiles, pair: &Pair, authorities: &[&Authority]) {
    replace(&files.certificate, &pair.certificate);
    replace(&files.key, &pair.key);
    trust(files, authorities);
}

/// Replaces the bundle of authorities only.
pub(crate) fn trust(files: &MutualFiles, authorities: &[&Authority]) {
    let bundle: String = authorities
        .iter()
        .map(|authority| authority.pem())
        .collect();
    replace(&files.ca, &bundle);
}

fn replace(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(aside, path).unwrap();
}
