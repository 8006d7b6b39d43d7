//! `testssl.sh` on the TLS ports: what an auditor of protocols, ciphers, certificates and headers sees.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared_testkit::process::{command, installed};
use shared_testkit::{Cluster, ClusterOptions, Scratch, run};

/// Checks that could not be made for reasons of their own: exotic engines of OpenSSL, and a TLS 1.3 ticket that
/// OpenSSL's client does not wait for.
const NOT_CHECKED: [&str; 2] = ["engine_problem", "sessionresumption_ticket"];
/// Trust in an authority that is known to its cluster alone, and has nobody to ask about revocation: locks do that.
const TRUST: [&str; 2] = ["cert_chain_of_trust", "cert_revocation"];
const PATIENCE: u64 = 180;

/// What is found wrong, as `id: finding`, except for `but`.
fn findings(
    folder: &Path,
    what: &str,
    (name, port): (&str, u16),
    checks: &[&str],
    but: &[&str],
) -> Result<Vec<String>> {
    let report = folder.join(format!("{what}.json"));
    let mut testssl = command("testssl", folder);
    testssl.args(["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none"]);
    testssl.args(["--ip", "127.0.0.1", "--severity", "LOW", "--jsonfile"]).arg(&report);
    let outcome = run(testssl.args(checks).arg(format!("https://{name}:{port}")), "", PATIENCE)?;
    let text = std::fs::read_to_string(&report).with_context(|| format!("{outcome:?}"))?;
    let found: Vec<Value> = serde_json::from_str(&text).context("the report")?;
    // A check that was made says so, however it came out.
    ensure!(outcome.text().contains("Done "), "{what}: not finished: {}", outcome.text());
    let wrong = found.iter().filter_map(|one| {
        let (id, finding) = (one["id"].as_str()?, one["finding"].as_str()?);
        let known = NOT_CHECKED.iter().chain(but).any(|known| *known == id);
        (!known).then(|| format!("{id}: {finding}"))
    });
    Ok(wrong.collect())
}

/// A certificate for localhost out of an authority of the web's kind; its file, its key's, the authority's.
fn bought(folder: &Path) -> Result<[std::path::PathBuf; 3]> {
    let openssl = |args: &str| -> Result<()> {
        let _done = run(command("openssl", folder).args(args.split(' ')), "", 30)?.ok();
        Ok(())
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    std::fs::write(
        folder.join("leaf.ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:false\n\
         keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n\
         crlDistributionPoints=URI:http://crl.example.test/ca.crl\n",
    )?;
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=test-ca -days 90"))?;
    openssl(&format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=localhost"))?;
    openssl(
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -extfile leaf.ext \
         -out leaf.pem",
    )?;
    Ok(["leaf.pem", "leaf.key", "ca.pem"].map(|name| folder.join(name)))
}

#[test]
fn the_tls_ports_have_nothing_to_complain_of() -> Result<()> {
    if !installed("testssl")? {
        return Ok(());
    }
    let scratch = Scratch::new("testssl")?;
    let [cert, key, authority] = bought(scratch.path())?;
    let options = ClusterOptions {
        proxy_extra: format!(
            "  https_keypairs:\n  - cert_file: {}\n    key_file: {}\n",
            cert.display(),
            key.display()
        ),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(&scratch.folder("bought")?, &options)?;
    let plain = Cluster::start(&scratch.folder("plain")?, &ClusterOptions::default())?;
    let everything = ["-p", "-s", "-f", "-S", "-h", "-U"];
    let authority = authority.display().to_string();
    let with_authority = [&everything[..], &["--add-ca", &authority]].concat();
    let folders = ["web", "auth", "made"].map(|name| scratch.folder(name));
    let [web_folder, auth_folder, made_folder] = folders;
    let (web_folder, auth_folder, made_folder) = (web_folder?, auth_folder?, made_folder?);
    let results = std::thread::scope(|scope| {
        let web = scope.spawn(|| {
            let at = ("localhost", cluster.port("web"));
            findings(&web_folder, "web", at, &with_authority, &["cert_chain_of_trust"])
        });
        let auth = scope.spawn(|| {
            let at = ("teleport.cluster.local", cluster.port("auth"));
            findings(&auth_folder, "auth", at, &everything, &TRUST)
        });
        // The certificate that a proxy makes itself; the rest is as above.
        let made = scope.spawn(|| {
            let at = ("localhost", plain.port("web"));
            findings(&made_folder, "made", at, &["-p", "-S", "-h"], &TRUST)
        });
        [("web", web), ("auth", auth), ("made", made)]
            .map(|(name, run)| (name, run.join().expect("the thread has no panic in it")))
    });
    for (name, result) in results {
        let wrong = result.with_context(|| name)?;
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    }
    Ok(())
}
