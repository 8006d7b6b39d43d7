//! Certificates for database servers as `tctl auth sign` writes them, and the authorities as `tctl auth export` prints
//! them, read and verified by openssl; databases as resources.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use shared_testkit::process::command;
use shared_testkit::{Outcome, run};

use crate::support::Stage;

struct Bench {
    stage: Stage,
    folder: PathBuf,
}

impl Bench {
    fn new(name: &str) -> Result<Self> {
        let stage = Stage::new(name)?;
        let folder = stage.scratch.folder("signed")?;
        Ok(Self { stage, folder })
    }

    fn tctl(&self, args: &[&str]) -> Result<Outcome> {
        run(self.stage.cluster.tctl().current_dir(&self.folder).args(args), "", 30)
    }

    fn sign(&self, args: &[&str]) -> Result<Outcome> {
        self.tctl(&[&["auth", "sign"], args].concat())
    }

    fn openssl(&self, args: &[&str]) -> Result<Outcome> {
        run(command("openssl", &self.folder).args(args), "", 10)
    }

    /// Writes what `tctl auth export` prints.
    fn export(&self, kind: &str) -> Result<String> {
        let exported = self.tctl(&["auth", "export", &format!("--type={kind}")])?.ok();
        let name = format!("{kind}.export");
        std::fs::write(self.folder.join(&name), &exported.stdout)?;
        Ok(name)
    }

    fn read(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.folder.join(name)).with_context(|| name.to_owned())
    }

    /// What openssl says of a certificate.
    fn shown(&self, name: &str) -> Result<String> {
        let text =
            self.openssl(&["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", name])?.ok();
        Ok(text.text())
    }

    /// The key is that of the certificate, and only its owner reads it.
    fn belongs(&self, key: &str, certificate: &str) -> Result<()> {
        let of_key = self.openssl(&["pkey", "-pubout", "-in", key])?.ok().text();
        let of_certificate =
            self.openssl(&["x509", "-noout", "-pubkey", "-in", certificate])?.ok().text();
        ensure!(of_key == of_certificate, "{key} is not the key of {certificate}");
        let mode = std::fs::metadata(self.folder.join(key))?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{key} has mode {mode:o}");
        Ok(())
    }

    fn verify(
        &self,
        authority: &str,
        purpose: &str,
        host: &str,
        certificate: &str,
    ) -> Result<Outcome> {
        self.openssl(&[
            "verify",
            "-x509_strict",
            "-CAfile",
            authority,
            "-purpose",
            purpose,
            "-verify_hostname",
            host,
            certificate,
        ])
    }
}

fn there(folder: &Path) -> Result<Vec<String>> {
    let mut names = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn servers_get_certificates_that_openssl_verifies() -> Result<()> {
    let bench = Bench::new("db-certs")?;
    let (db, clients) = (bench.export("db")?, bench.export("db-client")?);
    for format in ["db", "postgres", "mysql", "redis"] {
        let signed = bench
            .sign(&[
                "--format",
                format,
                "--host=pg.example.com,10.1.2.3,localhost",
                "--out",
                format,
                "--ttl=2h",
            ])?
            .ok();
        let said = signed.text();
        let named = format!(
            "Database credentials have been written to {format}.key, {format}.crt, {format}.cas."
        );
        ensure!(said.contains(&named), "{said}");
        let wanted: &[&str] = match format {
            "postgres" => &["ssl_ca_file = '/path/to/postgres.cas'"],
            "mysql" => &["[mysqld]", "ssl-cert=/path/to/mysql.crt"],
            "redis" => &["tls-ca-cert-file /path/to/redis.cas"],
            _ => &["ssl_cert_file = '/path/to/db.crt'", "ssl-key=/path/to/db.key"],
        };
        for line in wanted {
            ensure!(said.lines().any(|found| found == *line), "{line} in {said}");
        }
        let certificate = format!("{format}.crt");
        bench.belongs(&format!("{format}.key"), &certificate)?;
        for host in ["pg.example.com", "localhost"] {
            let _verified = bench.verify(&db, "sslserver", host, &certificate)?.ok();
        }
        ensure!(bench.verify(&db, "sslserver", "other.example.com", &certificate)?.code != 0);
        ensure!(
            bench.verify(&clients, "sslserver", "localhost", &certificate)?.code != 0,
            "signed by the wrong CA"
        );
        let shown = bench.shown(&certificate)?;
        for text in [
            "CN=pg.example.com",
            "DNS:pg.example.com, IP Address:10.1.2.3, DNS:localhost",
            "TLS Web Server Authentication",
            "CA:FALSE",
        ] {
            ensure!(shown.contains(text), "{text} in {shown}");
        }
        let late = bench.openssl(&["x509", "-noout", "-checkend", "7300", "-in", &certificate])?;
        ensure!(late.code != 0, "it lives longer than it was asked to");
        let _now =
            bench.openssl(&["x509", "-noout", "-checkend", "6600", "-in", &certificate])?.ok();
        // The server trusts those who sign clients, and not those who signed it.
        ensure!(bench.read(&format!("{format}.cas"))?.trim() == bench.read(&clients)?.trim());
    }
    Ok(())
}

#[test]
fn mongodb_and_cockroachdb_get_the_names_they_ask_for() -> Result<()> {
    let bench = Bench::new("db-certs-names")?;
    let (db, clients) = (bench.export("db")?, bench.export("db-client")?);
    let said = bench.sign(&["--format=mongodb", "--host=mongo-1", "--out=mongo"])?.ok().text();
    ensure!(said.contains("certificateKeyFile: /path/to/mongo.crt"), "{said}");
    bench.belongs("mongo.crt", "mongo.crt")?;
    let _verified = bench.verify(&db, "sslserver", "mongo-1", "mongo.crt")?.ok();
    let subject = bench
        .openssl(&["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", "mongo.crt"])?
        .ok();
    ensure!(subject.text().contains("CN=mongo-1,O=example.test"), "{}", subject.text());

    let said =
        bench.sign(&["--format=cockroachdb", "--host=crdb-1,crdb-2", "--out=certs"])?.ok().text();
    ensure!(said.contains("cockroach start --certs-dir=/path/to/certs"), "{said}");
    ensure!(
        there(&bench.folder.join("certs"))? == ["ca-client.crt", "ca.crt", "node.crt", "node.key"]
    );
    bench.belongs("certs/node.key", "certs/node.crt")?;
    for host in ["crdb-1", "crdb-2"] {
        let _verified = bench.verify("certs/ca.crt", "sslserver", host, "certs/node.crt")?.ok();
    }
    // Nodes are clients of each other.
    let _verified = bench.verify("certs/ca.crt", "sslclient", "crdb-1", "certs/node.crt")?.ok();
    let subject = bench
        .openssl(&["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", "certs/node.crt"])?
        .ok();
    ensure!(subject.text().contains("CN=node"), "{}", subject.text());
    ensure!(bench.read("certs/ca.crt")?.trim() == bench.read(&db)?.trim());
    ensure!(bench.read("certs/ca-client.crt")?.trim() == bench.read(&clients)?.trim());
    Ok(())
}

#[test]
fn the_authorities_are_exported_as_text_and_bytes() -> Result<()> {
    let bench = Bench::new("db-export")?;
    for kind in ["db", "db-client", "tls-user", "tls-host"] {
        let pem = bench.export(kind)?;
        let der = bench.export(&format!("{kind}-der"))?;
        let print = |form: &str, name: &str| -> Result<String> {
            let shown = bench.openssl(&[
                "x509",
                "-noout",
                "-fingerprint",
                "-sha256",
                "-inform",
                form,
                "-in",
                name,
            ])?;
            Ok(shown.ok().text())
        };
        ensure!(print("pem", &pem)? == print("der", &der)?, "{kind}");
        ensure!(bench.shown(&pem)?.contains("CA:TRUE"), "{kind}");
    }
    ensure!(bench.read("db.export")? != bench.read("db-client.export")?);
    let refused = bench.tctl(&["auth", "export", "--type=user-der"])?;
    ensure!(refused.code != 0 && refused.stderr.contains("no certificate"), "{}", refused.stderr);
    let unknown = bench.tctl(&["auth", "export", "--type=frobs"])?;
    ensure!(unknown.code != 0 && unknown.stderr.contains("frobs"), "{}", unknown.stderr);
    Ok(())
}

#[test]
fn nothing_is_overwritten_unasked_and_mistakes_are_named() -> Result<()> {
    let bench = Bench::new("db-certs-refused")?;
    let sign = ["--format=db", "--host=localhost", "--out=pg"];
    let _signed = bench.sign(&sign)?.ok();
    let before = bench.read("pg.crt")?;
    // Without a terminal there is nobody to ask.
    std::fs::remove_file(bench.folder.join("pg.key"))?;
    let again = bench.sign(&sign)?;
    ensure!(again.code != 0 && again.stderr.contains("pg.key, pg.crt, pg.cas"), "{}", again.stderr);
    ensure!(
        again.stderr.contains("--overwrite") && bench.read("pg.crt")? == before,
        "{}",
        again.stderr
    );
    ensure!(!bench.folder.join("pg.key").exists());
    let _replaced = bench.sign(&[&sign[..], &["--overwrite"]].concat())?.ok();
    ensure!(bench.read("pg.crt")? != before);
    bench.belongs("pg.key", "pg.crt")?;
    ensure!(there(&bench.folder)? == ["pg.cas", "pg.crt", "pg.key"], "something was left behind");

    for (args, code, text) in [
        (&["--format=frobs", "--host=a", "--out=x"][..], 2, "frobs"),
        (&["--format=db", "--out=x"], 2, "at least one hostname must be specified"),
        (&["--format=db", "--host=,", "--out=x"], 2, "at least one hostname must be specified"),
        (&["--format=db", "--user=joe", "--out=x"], 2, "for hosts, not for a user"),
        (&["--format=db", "--host=a b", "--out=x"], 1, "a b"),
        (&["--format=db", "--host=a", "--out=no/such/folder/x"], 1, "no/such/folder/x"),
    ] {
        let refused = bench.sign(args)?;
        ensure!(
            refused.code == code && refused.stderr.contains(text),
            "{args:?}: {}",
            refused.stderr
        );
    }
    // Only administrators have one signed.
    let joe = &bench.stage.joe;
    let mut tctl = command(shared_testkit::bin("tctl"), &joe.folder);
    let refused = run(tctl.args(["auth", "sign", "--format=db", "--host=a", "--out=x"]), "", 30)?;
    ensure!(refused.code == 4, "{} {}", refused.code, refused.stderr);
    ensure!(!joe.folder.join("x.crt").exists());
    Ok(())
}

#[test]
fn databases_are_resources_and_tokens_let_their_agents_in() -> Result<()> {
    let bench = Bench::new("db-resources")?;
    let document = |name: &str, uri: &str| {
        format!(
            "kind: db\nversion: v3\nmetadata:\n  name: {name}\n  labels:\n    env: prod\n\
             spec:\n  protocol: postgres\n  uri: {uri}\n"
        )
    };
    let create = |text: &str, args: &[&str]| -> Result<Outcome> {
        run(bench.stage.cluster.tctl().arg("create").args(args), text, 30)
    };
    let created = create(&document("orders", "pg.test:5432"), &[])?.ok().text();
    ensure!(created.contains("db \"orders\" has been created"), "{created}");
    let twice = create(&document("orders", "pg.test:5432"), &[])?;
    ensure!(twice.code != 0 && twice.stderr.contains("already exists"), "{}", twice.stderr);
    let forced = create(&document("orders", "pg.test:5433"), &["-f"])?.ok().text();
    ensure!(forced.contains("db \"orders\" has been updated"), "{forced}");
    let bad = create(&document("orders", "pg.test:5432").replace("postgres", "frobs"), &["-f"])?;
    ensure!(
        bad.code != 0 && bad.stderr.contains("frobs") && bad.stderr.contains("supported are"),
        "{}",
        bad.stderr
    );
    let got = bench.tctl(&["get", "db/orders"])?.ok().text();
    ensure!(got.contains("uri: pg.test:5433") && got.contains("kind: db"), "{got}");
    ensure!(bench.tctl(&["get", "db"])?.ok().text() == got);
    // Nobody serves it yet.
    ensure!(bench.tctl(&["get", "db_server", "--format=json"])?.ok().text().trim() == "[]");
    let listed = bench.tctl(&["db", "ls"])?.ok().text();
    ensure!(listed.starts_with("Host") && !listed.contains("orders"), "{listed}");
    ensure!(bench.tctl(&["db", "ls", "--query=labels["])?.code == 2);
    let removed = bench.tctl(&["rm", "db/orders"])?.ok().text();
    ensure!(removed.contains("db \"orders\" has been deleted"), "{removed}");
    ensure!(bench.tctl(&["get", "db/orders"])?.code == 5);
    for (view, times) in [("db_create", 1), ("db_update", 1), ("db_delete", 1)] {
        let rows = bench.stage.cluster.query(&format!("select name from {view}"))?;
        ensure!(rows == vec![vec!["orders".to_owned()]; times], "{view}: {rows:?}");
    }

    let invited = bench
        .tctl(&[
            "tokens",
            "add",
            "--type=db",
            "--db-name=orders",
            "--db-protocol=mysql",
            "--db-uri=my.test:3306",
        ])?
        .ok()
        .text();
    for line in [
        "> teleport db start \\",
        "   --name=orders \\",
        "   --protocol=mysql \\",
        "   --uri=my.test:3306",
    ] {
        ensure!(invited.lines().any(|found| found == line), "{line} in {invited}");
    }
    let unknown = bench.tctl(&["tokens", "add", "--type=db", "--db-protocol=frobs"])?;
    ensure!(unknown.code == 2 && unknown.stderr.contains("frobs"), "{}", unknown.stderr);
    Ok(())
}
