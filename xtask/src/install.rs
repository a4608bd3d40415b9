//! The foreign software that tests and bench run against, from Debian's packages: installed when missing, configured by
//! nobody, not left running.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::step;

/// Program that must be there → package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("/usr/sbin/postfix", "postfix"),
    ("/usr/sbin/smtp-source", "postfix"),
    ("/usr/bin/swaks", "swaks"),
    // swaks speaks TLS with it.
    ("/usr/share/doc/libnet-ssleay-perl", "libnet-ssleay-perl"),
    ("/usr/bin/python3", "python3"),
    ("/usr/share/doc/python3-venv", "python3-venv"),
    // Second opinions: on DKIM signatures, on Authentication-Results.
    ("/usr/share/doc/python3-dkim", "python3-dkim"),
    ("/usr/share/doc/python3-nacl", "python3-nacl"),
    ("/usr/share/doc/python3-authres", "python3-authres"),
    // Engines of services. Of each, tests start one of their own; clamd without freshclam, with signatures of theirs.
    ("/usr/bin/rspamd", "rspamd"),
    ("/usr/sbin/clamd", "clamav-daemon"),
    ("/usr/sbin/slapd", "slapd"),
    ("/usr/bin/ldapmodify", "ldap-utils"),
    ("/usr/sbin/nsd", "nsd"),
    ("/usr/lib/postgresql", "postgresql"),
    ("/usr/sbin/opendkim", "opendkim"),
    // libmilter, for a milter that does what a test says.
    ("/usr/share/doc/python3-milter", "python3-milter"),
    // The other side of secure-mail.
    ("/usr/bin/gpg", "gnupg"),
    ("/usr/bin/openssl", "openssl"),
    // Downloads what attachment-links serves.
    ("/usr/bin/chromium", "chromium"),
    ("/usr/bin/curl", "curl"),
    // A Kubernetes of the tests' own. Its daemons, kubectl and helm: kubernetes.rs.
    ("/usr/bin/etcd", "etcd-server"),
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/share/doc/iproute2", "iproute2"),
    // Not the static one, whose resolver crashes.
    ("/usr/share/doc/busybox", "busybox"),
    // Looks at the cluster as an installation's own would, and tries the alerts.
    ("/usr/bin/prometheus", "prometheus"),
    ("/usr/bin/promtool", "prometheus"),
    // Images: `strip`, and what programs believe.
    ("/usr/bin/strip", "binutils"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
    // Second opinions on images: who pushes, copies and verifies them, and to where.
    ("/usr/bin/skopeo", "skopeo"),
    ("/usr/bin/docker-registry", "docker-registry"),
    // A program for another platform, in a few lines of assembler.
    (
        "/usr/bin/aarch64-linux-gnu-as",
        "binutils-aarch64-linux-gnu",
    ),
    ("/usr/aarch64-linux-gnu/lib/libc.so.6", "libc6-arm64-cross"),
];

/// Installs without a question, and without starting or enabling a mail server on a developer's machine: while `policy-rc.d`
/// says 101, package scripts start nothing, and PostgreSQL makes no cluster. Postfix and slapd get no configuration; the tests write their own.
const SCRIPT: &str = r#"
set -e
ours=
trap 'rm -f $ours' EXIT
if [ ! -e /usr/sbin/policy-rc.d ]; then
    ours=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
export DEBIAN_FRONTEND=noninteractive
case " $* " in *" postfix "*)
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections ;;
esac
case " $* " in *" slapd "*)
    echo 'slapd slapd/no_configuration boolean true' | debconf-set-selections ;;
esac
case " $* " in *" postgresql "*)
    cluster=/etc/postgresql-common/createcluster.d/opes.conf
    mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' > $cluster
    ours="$ours $cluster" ;;
esac
apt-get install -q -y --no-install-recommends "$@" || {
    apt-get update -q
    apt-get install -q -y --no-install-recommends "$@"
}
for service in postfix nsd opendkim slapd rspamd clamav-daemon etcd containerd nftables prometheus docker-registry; do
    case " $* " in *" $service "*)
        if [ -d /run/systemd/system ]; then systemctl disable --now $service.service || true; fi ;;
    esac
done
"#;

/// Installs what is missing.
pub(crate) fn packages() -> Result<()> {
    let missing = missing(|program| Path::new(program).exists());
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let advice = format!("`apt-get install {names}` as root, then run this again");
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "{names} missing, and this is no Debian; install them by hand"
    );
    let mut install = if is_root() {
        Command::new("env")
    } else {
        Command::new("sudo")
    };
    if !is_root() {
        let sudo = Command::new("sudo").args(["-n", "true"]).output();
        let may = sudo.is_ok_and(|output| output.status.success());
        ensure!(
            may,
            "{names} missing, and neither root nor sudo without a password: {advice}"
        );
        install.arg("-n");
    }
    install.args(["sh", "-c", SCRIPT, "install"]).args(&missing);
    step::timed(&format!("install {names}"), || {
        let status = install.status()?;
        ensure!(status.success(), "apt-get: {status}; {advice}");
        Ok(())
    })
}

fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let absent = NEEDED.iter().filter(|(program, _)| !is_there(program));
    let mut packages: Vec<_> = absent.map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::missing;

    #[test]
    fn each_missing_package_is_named_once() {
        let all = missing(|_| false);
        let names: BTreeSet<_> = all.iter().collect();
        assert_eq!(names.len(), all.len(), "{all:?}");
        assert!(names.contains(&"postfix") && names.contains(&"curl"));
        assert_eq!(
            missing(|program| !program.ends_with("smtp-source")),
            ["postfix"]
        );
        assert!(missing(|_| true).is_empty());
    }
}
