//! A proxy in the wrong hands against the real `tsh`: what it can do with the agent that it is lent (design §7), and
//! what a login through it gives away.

pub(crate) mod agent;
mod login;
mod proxy;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use russh::keys::ssh_key::Certificate;
use shared_config::ProfileDir;
use shared_pki::{KeyPair, parse_certificate_line};
use shared_ssh::agent::{AgentKey, EmbeddedAgent, Policy};
use shared_ssh::wire::{
    AuthMethod, Put, Reply, Request, SessionBind, UserAuthRequest, encode_userauth,
};
use shared_testkit::{Home, Outcome, Sshd};
use tokio::runtime::Runtime;

use self::agent::{Attack, Lent, Reached, UserKey};
use self::proxy::{Asked, Held, HostileProxy, Stolen, act, options, runtime, serve};
use crate::support::Stage;

/// A login in the certificate that the user did not type.
const OTHER_LOGIN: &str = "deputy";
/// The name in the host certificate of a server that the user did not type.
const COVETED: &str = "vault.example.com";
/// What the user types; the host certificate of the stage's sshd has it.
const TYPED: &str = "127.0.0.1";

/// A cluster, a user with two logins, the server she means and one she does not.
struct Scene {
    runtime: Runtime,
    ann: Home,
    stolen: Stolen,
    coveted: Sshd,
    stage: Stage,
}

/// What an attack works with.
#[derive(Clone)]
struct Facts {
    target: u16,
    coveted: u16,
    login: String,
    /// The proxy's certificate for the name the user typed.
    forged: Held,
}

impl Scene {
    fn new(name: &str, recording: &str) -> Result<Self> {
        let runtime = runtime()?;
        let stage = Stage::with(name, &options(recording), "")?;
        let ann = stage.cluster.user(
            "ann",
            "access,loopback",
            &format!("{},{OTHER_LOGIN}", stage.login),
        )?;
        let coveted = stage.cluster.sshd("coveted", COVETED, "")?;
        let stolen = Stolen::join(&runtime, &stage.cluster)?;
        Ok(Self { runtime, ann, stolen, coveted, stage })
    }

    fn held(&self, name: &str) -> Result<Held> {
        self.runtime.block_on(self.stolen.held(name))
    }

    fn facts(&self) -> Result<Facts> {
        Ok(Facts {
            target: self.stage.sshd.port,
            coveted: self.coveted.port,
            login: self.stage.login.clone(),
            forged: self.held(TYPED)?,
        })
    }

    /// A proxy that does `attack` with the agent of whoever asks it for a server.
    fn attacker<F>(
        &self,
        attack: impl Fn(Lent, UserKey) -> F + Send + Sync + 'static,
    ) -> Result<HostileProxy>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let attack = Arc::new(attack);
        let act = act(move |asked: Asked| {
            let attack = Arc::clone(&attack);
            async move {
                let key = UserKey::new(asked.certificate.clone())?;
                let done = attack(Lent::Forwarded(asked.handle.clone()), key).await;
                asked.dismiss().await;
                done
            }
        });
        HostileProxy::start(&self.runtime, self.held("localhost")?, act)
    }

    /// `tsh ssh … true` of the user, whose profile leads to the hostile proxy. The way to auth stays the true one.
    fn tsh_through(&self, proxy: &HostileProxy, args: &[&str]) -> Result<Outcome> {
        aim(&self.ann.folder, proxy.port)?;
        let port = format!("--port={}", self.stage.sshd.port);
        let target = format!("{}@{TYPED}", self.stage.login);
        self.ann.run(
            ["ssh", &port].into_iter().chain(args.iter().copied()).chain([target.as_str(), "true"]),
        )
    }

    /// The user's agent as the library makes it.
    fn library(&self, change: impl FnOnce(Policy) -> Policy) -> Result<(Lent, UserKey)> {
        let key = KeyPair::from_openssh_pem(&std::fs::read_to_string(self.ann.ssh_key())?)?;
        let certificate = self.certificate()?;
        let key = AgentKey::new(key.private().clone(), certificate.clone(), "teleport:ann")?;
        let authorities = self.stolen.authorities.authorities.clone();
        let policy = Policy::new(TYPED.parse()?, self.stage.login.parse()?, authorities);
        Ok((
            Lent::Library(EmbeddedAgent::new(Arc::new(key), change(policy))),
            UserKey::new(certificate)?,
        ))
    }

    fn certificate(&self) -> Result<Certificate> {
        Ok(parse_certificate_line(&std::fs::read_to_string(self.ann.ssh_certificate())?)?)
    }
}

/// Makes the profile in `home` use another SSH port of the proxy.
fn aim(home: &Path, port: u16) -> Result<()> {
    let dir = ProfileDir::at(&home.join(".tsh"));
    let mut profile = dir.current()?.context("no profile")?;
    profile.ssh_proxy_addr = format!("localhost:{port}");
    profile.tls_routing_enabled = false;
    Ok(dir.save(&profile)?)
}

#[test]
fn binds_that_are_not_the_typed_hosts_are_refused() -> Result<()> {
    let scene = Scene::new("hbind", "proxy")?;
    let facts = scene.facts()?;
    let attacker = scene.attacker(move |lent, key| binding(lent, key, facts.clone()))?;
    let refused = scene.tsh_through(&attacker, &[])?;
    attacker.verdict()?;
    let refused = refused.fails(255, "the agent refused to sign for the proxy");
    assert!(refused.text().is_empty());
    Ok(())
}

async fn binding(lent: Lent, key: UserKey, facts: Facts) -> Result<()> {
    let Facts { target, coveted, login, forged } = facts;
    let bind_of = |name, message, before| Attack { name, before, message, fatal: true };

    let reached = Reached::server(target).await?;
    let request = encode_userauth(&reached.request(&login, &key));
    let tolerated = |name, message| Attack { name, before: Vec::new(), message, fatal: false };
    tolerated("listing before the bind", Request::encode_list()).demand_refusal(&lent).await?;
    tolerated("signing before the bind", key.sign(&request)).demand_refusal(&lent).await?;

    let other = Reached::server(coveted).await?;
    bind_of("a proxy's certificate for the typed name", forged.bind(&other.session_id)?, vec![])
        .demand_refusal(&lent)
        .await?;
    bind_of("another host", other.bind(), vec![]).demand_refusal(&lent).await?;
    bind_of("a forwarding bind", reached.bind_for(true), vec![]).demand_refusal(&lent).await?;
    let Reached { host_key, session_id, .. } = &reached;
    let own = SessionBind {
        host_key,
        session_id,
        signature: &forged.signature(session_id)?,
        forwarding: false,
    };
    bind_of("the host's certificate with the proxy's signature", own.encode(), vec![])
        .demand_refusal(&lent)
        .await?;
    let elsewhere =
        SessionBind { session_id: &other.session_id, signature: &reached.signature, ..own.clone() };
    bind_of("the host's signature over another session", elsewhere.encode(), vec![])
        .demand_refusal(&lent)
        .await?;
    let long = vec![7; 65];
    let long = SessionBind { session_id: &long, signature: &forged.signature(&long)?, ..own };
    bind_of("a session id of 65 bytes", long.encode(), vec![]).demand_refusal(&lent).await?;

    // None of it has used up the honest one.
    let second = Reached::server(target).await?;
    bind_of("a second bind", second.bind(), vec![reached.bind()]).demand_refusal(&lent).await?;
    bind_of("a replayed bind", reached.bind(), vec![]).demand_refusal(&lent).await?;
    bind_of("the same bind twice", second.bind(), vec![second.bind()])
        .demand_refusal(&lent)
        .await?;

    // The control: what is no attack is not refused.
    let honest = Reached::server(target).await?;
    ensure!(
        bind_of("an honest bind", honest.bind(), vec![]).demand_refusal(&lent).await.is_err(),
        "an honest bind is refused"
    );
    Ok(())
}

#[test]
fn nothing_but_the_typed_login_is_signed_and_not_twice() -> Result<()> {
    let scene = Scene::new("hsign", "proxy")?;
    let certificate = scene.certificate()?;
    // Otherwise refusing the other login would prove nothing.
    for login in [scene.stage.login.as_str(), OTHER_LOGIN] {
        assert!(
            certificate.valid_principals().iter().any(|principal| principal == login),
            "{login}"
        );
    }
    let facts = scene.facts()?;
    let attacker = scene.attacker(move |lent, key| signing(lent, key, facts.clone()))?;
    let refused = scene.tsh_through(&attacker, &[])?;
    attacker.verdict()?;
    let refused = refused.fails(255, "the agent refused to sign for the proxy");
    assert!(refused.text().is_empty());
    Ok(())
}

async fn signing(lent: Lent, key: UserKey, facts: Facts) -> Result<()> {
    let Facts { target, coveted, login, forged } = facts;
    let other = Reached::server(coveted).await?;
    let plain_key = key.certificate.public_key().clone();
    let plain_key = russh::keys::PublicKey::from(plain_key).to_bytes()?;
    let forged = forged.blob()?;

    type Change<'a> = &'a (dyn Fn(UserAuthRequest<'_>) -> Vec<u8> + Sync);
    let cases: [(&str, Change<'_>); 8] = [
        ("another session", &|request| {
            encode_userauth(&UserAuthRequest { session_id: &other.session_id, ..request })
        }),
        ("another user", &|request| {
            encode_userauth(&UserAuthRequest { user: OTHER_LOGIN.as_bytes(), ..request })
        }),
        ("another host key", &|request| {
            encode_userauth(&UserAuthRequest { method: AuthMethod::HostBound(&forged), ..request })
        }),
        ("another service", &|request| {
            encode_userauth(&UserAuthRequest { service: b"ssh-userauth", ..request })
        }),
        ("another algorithm", &|request| {
            encode_userauth(&UserAuthRequest { algorithm: b"ssh-ed25519", ..request })
        }),
        ("the key without its certificate", &|request| {
            encode_userauth(&UserAuthRequest {
                algorithm: b"ssh-ed25519",
                key: &plain_key,
                ..request
            })
        }),
        ("spare bytes", &|request| {
            let mut bytes = encode_userauth(&request);
            bytes.push(0);
            bytes
        }),
        ("what is no login", &|request| {
            let mut bytes = b"SSHSIG".to_vec();
            bytes.put_string(request.session_id);
            bytes
        }),
    ];
    for (name, change) in cases {
        let reached = Reached::server(target).await?;
        let message = key.sign(&change(reached.request(&login, &key)));
        let attack = Attack { name, before: vec![reached.bind()], message, fatal: false };
        attack.demand_refusal(&lent).await?;
    }

    let reached = Reached::server(target).await?;
    let request = encode_userauth(&reached.request(&login, &key));
    let mut dialogue = lent.open().await?;
    ensure!(dialogue.ask(&reached.bind()).await? == Some(Reply::Success), "the honest bind");
    for (name, message) in [
        ("a signature under another hash", Request::encode_sign(&key.blob, &request, 4)),
        ("a signature by the plain key", Request::encode_sign(&plain_key, &request, 0)),
        ("removing all keys", vec![19]),
    ] {
        let reply = dialogue.ask(&message).await?;
        ensure!(reply == Some(Reply::Failure), "{name}: {reply:?}");
    }
    // The control: the same harness gets the one signature that there is to get, and a login with it.
    ensure!(
        matches!(dialogue.ask(&Request::encode_list()).await?, Some(Reply::Identities(keys)) if keys.len() == 1),
        "list"
    );
    let honest = Reached::server(target).await?;
    let bind = honest.bind();
    ensure!(
        honest.break_in(&lent, bind, &login, &key, true).await?,
        "the login that the user meant does not work"
    );
    // The user has opened no session yet, so that was all.
    let reply = dialogue.ask(&key.sign(&request)).await?;
    ensure!(
        matches!(reply, None | Some(Reply::Failure)),
        "a signature beyond the budget: {reply:?}"
    );
    let more = Reached::server(target).await?;
    let bind = more.bind();
    ensure!(!more.break_in(&lent, bind, &login, &key, true).await?, "a login beyond the budget");
    Ok(())
}

#[test]
fn a_forged_bind_opens_no_other_host_but_would_without_the_role_check() -> Result<()> {
    let scene = Scene::new("hforge", "proxy")?;
    let facts = scene.facts()?;
    let forge = async |lent: &Lent, key: &UserKey, facts: &Facts, hostbound| {
        let coveted = Reached::server(facts.coveted).await?;
        let bind = facts.forged.bind(&coveted.session_id)?;
        coveted.break_in(lent, bind, &facts.login, key, hostbound).await
    };
    let at_tsh = facts.clone();
    let attacker = scene.attacker(move |lent, key| {
        let facts = at_tsh.clone();
        async move {
            for hostbound in [false, true] {
                let coveted = Reached::server(facts.coveted).await?;
                let bind = facts.forged.bind(&coveted.session_id)?;
                let broken = coveted.break_in(&lent, bind, &facts.login, &key, hostbound).await?;
                ensure!(!broken, "the forged bind opened the other host, hostbound {hostbound}");
            }
            // An honest bind of the host that was not typed.
            let coveted = Reached::server(facts.coveted).await?;
            let bind = coveted.bind();
            ensure!(
                !coveted.break_in(&lent, bind, &facts.login, &key, true).await?,
                "another host"
            );
            Ok(())
        }
    })?;
    let refused = scene.tsh_through(&attacker, &[])?;
    attacker.verdict()?;
    let _refused = refused.fails(255, "the agent refused to sign for the proxy");

    scene.runtime.block_on(async {
        let (lent, key) = scene.library(|policy| policy)?;
        ensure!(!forge(&lent, &key, &facts, false).await?, "the library agrees with tsh");
        // The control: the attack is real, and it is the role check that stops it.
        let (lent, key) = scene.library(Policy::danger_skip_role_check)?;
        ensure!(
            forge(&lent, &key, &facts, false).await?,
            "without the role check the attack succeeds"
        );
        // A request that names the host stops it once more.
        let (lent, key) = scene.library(Policy::danger_skip_role_check)?;
        ensure!(!forge(&lent, &key, &facts, true).await?, "a request that names the host");
        Ok(())
    })
}

#[test]
fn where_no_agent_was_lent_none_can_be_had() -> Result<()> {
    let scene = Scene::new("hlent", "proxy")?;
    let forged = scene.held(TYPED)?;
    // The inner connection, where the proxy speaks for the target as it does when it records.
    let inner = |opens: bool| {
        act(move |asked: Asked| async move {
            let opened = Lent::Forwarded(asked.handle.clone()).open().await.is_ok();
            asked.satisfy().await;
            ensure!(opened == opens, "an agent channel on the inner connection: {opened}");
            Ok(())
        })
    };
    for forwarded in [false, true] {
        let (sender, verdicts) = std::sync::mpsc::channel();
        let (forged, inner) = (forged.clone(), inner(forwarded));
        let outer = act(move |asked: Asked| {
            let (forged, inner, sender) = (forged.clone(), Arc::clone(&inner), sender.clone());
            async move {
                asked.handle.channel_success(asked.channel.id()).await.ok();
                serve(asked.channel.into_stream(), forged, inner, sender).await;
                Ok(())
            }
        });
        let proxy = HostileProxy::start(&scene.runtime, scene.held("localhost")?, outer)?;
        let _done = scene.tsh_through(&proxy, if forwarded { &["-A"] } else { &[] })?.ok();
        verdicts
            .recv_timeout(std::time::Duration::from_secs(30))
            .context("no command arrived")??;
    }

    // Where nothing is recorded, the proxy is lent nothing and may not pass for the target.
    let _switched = scene.stage.cluster.create(
        "kind: session_recording_config\nversion: v2\nmetadata:\n  name: session-recording-config\nspec:\n  mode: off\n",
    )?;
    let (sender, verdicts) = std::sync::mpsc::channel();
    let reached_inside = act(|asked: Asked| async move {
        asked.satisfy().await;
        Ok(())
    });
    let outer = act(move |asked: Asked| {
        let (forged, inside, sender) =
            (forged.clone(), Arc::clone(&reached_inside), sender.clone());
        async move {
            let opened = Lent::Forwarded(asked.handle.clone()).open().await.is_ok();
            asked.handle.channel_success(asked.channel.id()).await.ok();
            serve(asked.channel.into_stream(), forged, inside, sender).await;
            ensure!(!opened, "an agent channel although nothing is recorded");
            Ok(())
        }
    });
    let proxy = HostileProxy::start(&scene.runtime, scene.held("localhost")?, outer)?;
    let refused = scene.tsh_through(&proxy, &[])?;
    proxy.verdict()?;
    assert_eq!(refused.code, 255, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("Proxy") && refused.stderr.contains("Node"),
        "{}",
        refused.stderr
    );
    assert!(verdicts.try_recv().is_err(), "a command reached the proxy that passed for the target");
    assert!(proxy.idle());
    Ok(())
}
