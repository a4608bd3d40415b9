//! The certificates of one cluster: an authority, and pairs that it signs. All of them go with the cluster's folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// An authority with its folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

// === impl Authority ===

impl Authority {
    /// A new one, called `name`, with its files in `folder`.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let key = KeyPair::generate()?;
        let mut params = named(name, None, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let made = params.self_signed(&key)?;
        let certificate = folder.join(format!("{name}.crt"));
        fs::write(&certificate, made.pem())?;
        Ok(Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// For a client: `user` is who it is, `group` what it belongs to. More groups than one take impersonation.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Pair> {
        let params = named(user, group, &[])?;
        self.sign(user, params, &[ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// For a server that is found under `names`, host names or addresses.
    pub fn server(&self, name: &str, names: &[&str]) -> Result<Pair> {
        let params = named(name, None, names)?;
        self.sign(name, params, &[ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// For both ends of connections among equals.
    pub fn peer(&self, name: &str, names: &[&str]) -> Result<Pair> {
        let params = named(name, None, names)?;
        let both = [
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        self.sign(name, params, &both)
    }

    fn sign(
        &self,
        name: &str,
        mut params: CertificateParams,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Result<Pair> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = name.replace([':', '/'], "-");
        let pair = Pair {
            certificate: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        fs::write(&pair.certificate, certificate.pem())?;
        fs::write(&pair.key, key.serialize_pem())?;
        Ok(pair)
    }
}

fn named(name: &str, group: Option<&str>, names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    Ok(params)
}

/// A key pair alone, PEM: what service account tokens are signed with, and what they are checked with (`certificate` is the public key).
pub fn signing_pair(folder: &Path) -> Result<Pair> {
    let key = KeyPair::generate()?;
    let pair = Pair {
        certificate: folder.join("service-accounts.pub"),
        key: folder.join("service-accounts.key"),
    };
    fs::write(&pair.certificate, key.public_key_pem())?;
    fs::write(&pair.key, key.serialize_pem())?;
    Ok(pair)
}
