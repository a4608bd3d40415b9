//! A real slapd of the test's own: its configuration, schema and entries in a temporary folder, on ports of its own. Ends with
//! the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpStream, UnixStream};

use crate::{DEADLINE, need, ports};

/// Where everything is.
pub const BASE: &str = "dc=example,dc=org";
/// Who may read it.
pub const READER: &str = "cn=reader,dc=example,dc=org";
/// With this.
pub const READER_PASSWORD: &str = "hidden";

/// See the module.
pub struct Slapd {
    server: Option<Child>,
    folder: tempfile::TempDir,
    port: u16,
    tls_port: u16,
}

impl Slapd {
    /// With the entries of `ldif`, below [`BASE`]. Certificates are for `localhost`.
    pub async fn start(ldif: &str) -> Result<Self> {
        need("slapd");
        need("slapadd");
        let mut slapd = Self {
            server: None,
            folder: tempfile::tempdir()?,
            port: ports::free()?,
            tls_port: ports::free()?,
        };
        let folder = slapd.folder.path();
        for name in ["config", "data"] {
            std::fs::create_dir(folder.join(name))?;
        }
        certificates(folder)?;
        std::fs::write(folder.join("password"), READER_PASSWORD)?;
        slapd.add("0", &configuration(folder))?;
        slapd.add("1", &format!("{ENTRIES}\n{ldif}"))?;
        slapd.run().await?;
        Ok(slapd)
    }

    /// Starts it again, where it was.
    pub async fn run(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let urls = format!(
            "ldap://127.0.0.1:{}/ ldaps://127.0.0.1:{}/ ldapi://{}",
            self.port,
            self.tls_port,
            self.socket().display().to_string().replace('/', "%2F"),
        );
        let server = Command::new("/usr/sbin/slapd")
            // `stats`: a line for each operation; it stays in the foreground.
            .args(["-d", "256", "-h", &urls, "-F"])
            .arg(self.folder.path().join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("slapd")?;
        self.server = Some(server);
        tokio::time::timeout(DEADLINE, async {
            while !self.listens().await {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await
        .with_context(|| format!("slapd does not listen: {}", self.said()))
    }

    /// It begins with one after the other.
    async fn listens(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.tls_port))
            .await
            .is_ok()
            && UnixStream::connect(self.socket()).await.is_ok()
    }

    /// `ldap://` on this machine, in the clear.
    pub fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    /// For StartTLS, which wants the name.
    pub fn named_url(&self) -> String {
        format!("ldap://localhost:{}", self.port)
    }

    /// `ldaps://`.
    pub fn tls_url(&self) -> String {
        format!("ldaps://localhost:{}", self.tls_port)
    }

    /// `ldapi://`.
    pub fn socket_url(&self) -> String {
        format!("ldapi://{}", self.socket().display())
    }

    /// Authority of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// File with the password of [`READER`].
    pub fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    /// Searches below [`BASE`] that it has seen.
    pub fn searches(&self) -> usize {
        let base = format!("SRCH base=\"{BASE}\"");
        self.said().matches(&base).count()
    }

    /// SIGSTOP, and its effect awaited: it is there and says nothing.
    pub async fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let server = self.server.as_ref().context("slapd does not run")?;
        let tasks = format!("/proc/{}/task", server.id());
        let stopped = || {
            let tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
            let mut states = tasks.map(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // Behind the name, which is in parentheses.
                stat.rsplit(") ")
                    .next()
                    .is_some_and(|rest| rest.starts_with('T'))
            });
            states.all(|is_stopped| is_stopped)
        };
        crate::eventually("slapd has stopped", stopped).await;
        Ok(())
    }

    /// SIGCONT.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, and its end awaited.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Gone already is fine.
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let server = self.server.as_ref().context("slapd does not run")?;
        Ok(kill_process(Pid::from_child(server), signal)?)
    }

    fn add(&self, database: &str, ldif: &str) -> Result<()> {
        let file = self.folder.path().join(format!("{database}.ldif"));
        std::fs::write(&file, ldif)?;
        let added = Command::new("/usr/sbin/slapadd")
            .args(["-n", database, "-F"])
            .arg(self.folder.path().join("config"))
            .arg("-l")
            .arg(&file)
            .output()?;
        ensure!(
            added.status.success(),
            "slapadd: {}",
            String::from_utf8_lossy(&added.stderr)
        );
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("ldapi")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn said(&self) -> String {
        let octets = std::fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&octets).into_owned()
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn certificates(folder: &Path) -> Result<()> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new([])?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key)?;
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate()?;
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("certificate.pem", certificate.pem()),
        ("key.pem", key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// Its own configuration, the schema included: mail routing (draft-lachman-laser-ldap-mail-routing), and an attribute for the
/// word of access-control.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "dn: cn=config\nobjectClass: olcGlobal\ncn: config\n\
         olcTLSCACertificateFile: {folder}/ca.pem\nolcTLSCertificateFile: {folder}/certificate.pem\n\
         olcTLSCertificateKeyFile: {folder}/key.pem\n\n\
         dn: cn=module,cn=config\nobjectClass: olcModuleList\ncn: module\nolcModulePath: /usr/lib/ldap\nolcModuleLoad: back_mdb\n\n\
         dn: cn=schema,cn=config\nobjectClass: olcSchemaConfig\ncn: schema\n\n\
         include: file:///etc/ldap/schema/core.ldif\n\n\
         dn: cn=mail,cn=schema,cn=config\nobjectClass: olcSchemaConfig\ncn: mail\n\
         olcAttributeTypes: ( 2.16.840.1.113730.3.1.13 NAME 'mailLocalAddress' EQUALITY caseIgnoreIA5Match \
         SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )\n\
         olcAttributeTypes: ( 2.16.840.1.113730.3.1.18 NAME 'mailHost' EQUALITY caseIgnoreIA5Match \
         SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )\n\
         olcAttributeTypes: ( 2.16.840.1.113730.3.1.47 NAME 'mailRoutingAddress' EQUALITY caseIgnoreIA5Match \
         SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )\n\
         olcAttributeTypes: ( 1.3.6.1.4.1.4203.666.1.1 NAME 'mailAccess' EQUALITY caseIgnoreMatch \
         SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )\n\
         olcObjectClasses: ( 2.16.840.1.113730.3.2.147 NAME 'inetLocalMailRecipient' SUP top AUXILIARY \
         MAY ( mailLocalAddress $ mailHost $ mailRoutingAddress $ mailAccess ) )\n\n\
         dn: olcDatabase=mdb,cn=config\nobjectClass: olcDatabaseConfig\nobjectClass: olcMdbConfig\nolcDatabase: mdb\n\
         olcSuffix: {BASE}\nolcDbDirectory: {folder}/data\nolcDbNoSync: TRUE\n\
         olcAccess: to attrs=userPassword by anonymous auth by * none\n\
         olcAccess: to * by dn.exact=\"{READER}\" read by * none\n"
    )
}

const ENTRIES: &str = "dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: cn=reader,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: hidden
";

/// An entry for a person, with more attributes in `more`, a line each.
pub fn person(name: &str, more: &str) -> String {
    format!(
        "dn: cn={name},{BASE}\nobjectClass: person\nobjectClass: inetLocalMailRecipient\ncn: {name}\nsn: {name}\n{more}\n\n"
    )
}
