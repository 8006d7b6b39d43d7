//! Certificates of users and hosts.
//!
//! What must stay true: a user certificate has principals, and lives no longer than the shortest of role
//! limit and wish; a host certificate has at least one name; a proxy gets role Proxy and nothing else; a
//! renewed certificate never outlives the one it was renewed with.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use shared_api::{
    ApiError, HostCertReply, HostCertRequest, LoginReply, ProxyHostCertRequest, Secret,
    UserCertsRequest, limits,
};
use shared_authz::{RoleSet, Template, Verb};
use shared_pki::ssh_key::PublicKey;
use shared_pki::{Cidr, HostCertSpec, PkiError, TlsIdentity, TlsPublicKey, UserCertSpec};
use shared_types::resource::CertFormat;
use shared_types::{
    HostName, Login, Resource, ResourceKind, RoleName, SystemRole, Traits, UserName,
};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
use crate::service::AuthService;

/// Life of the host certificates of a proxy's inner servers.
const PROXY_HOST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Keys to certify.
pub(crate) struct Keys {
    ssh: PublicKey,
    tls: TlsPublicKey,
}

impl Keys {
    pub(crate) fn parse(ssh: &str, tls: &str) -> Result<Self> {
        Ok(Self { ssh: ssh_key(ssh)?, tls: tls_key("tls_public_key", tls)? })
    }

    pub(crate) fn ssh(&self) -> &PublicKey {
        &self.ssh
    }

    /// Tells these two keys from others.
    pub(crate) fn fingerprint(&self) -> String {
        let ssh = self.ssh.fingerprint(shared_pki::ssh_key::HashAlg::Sha256);
        format!("{ssh} {}", hex::encode(Sha256::digest(self.tls.der())))
    }

    pub(crate) fn tls(&self) -> &TlsPublicKey {
        &self.tls
    }
}

pub(crate) fn ssh_key(line: &str) -> Result<PublicKey> {
    shared_pki::parse_public_key(line)
        .map_err(|_| AuthError::bad_request("ssh_public_key: public key is not readable"))
}

pub(crate) fn tls_key(field: &str, pem: &str) -> Result<TlsPublicKey> {
    TlsPublicKey::from_pem(pem).map_err(|error| AuthError::bad_request(format!("{field}: {error}")))
}

/// Who a certificate is for.
pub(crate) struct Subject {
    pub(crate) user: UserName,
    pub(crate) roles: Vec<RoleName>,
    pub(crate) traits: Traits,
    /// Where the user is.
    pub(crate) address: Option<IpAddr>,
    /// The certificates may not live longer than this.
    pub(crate) not_after: Option<DateTime<Utc>>,
}

impl AuthService {
    /// Signs both certificates of a user. The caller of this function records the event and only then answers.
    pub(crate) fn issue_user(
        &self,
        subject: Subject,
        keys: &Keys,
        ttl_seconds: Option<u64>,
    ) -> Result<(LoginReply, shared_events::AuditEvent)> {
        let now = self.now();
        let state = self.current_state();
        let roles = self.subject_roles(&subject)?;
        let ttl = self.subject_life(&subject, &roles, ttl_seconds)?;
        let names: Vec<RoleName> = subject.roles;
        let options = roles.options();
        let logins: Vec<Login> = roles.logins();
        let pinned = subject.address.filter(|_| options.pin_source_ip);

        let mut ssh = UserCertSpec::new(
            keys.ssh().clone(),
            subject.user.clone(),
            logins.clone(),
            self.cluster().clone(),
            now,
            ttl,
        );
        ssh.roles = names.clone();
        ssh.traits = subject.traits.clone();
        ssh.permit_port_forwarding = options.port_forwarding;
        ssh.permit_agent_forwarding = options.forward_agent;
        ssh.permit_x11_forwarding = options.permit_x11_forwarding;
        ssh.login_ip = subject.address;
        ssh.source_addresses = pinned.map(Cidr::single).into_iter().collect();
        ssh.old_ssh_format = options.cert_format == CertFormat::Oldssh;
        // Names that certificates use themselves stay what they are.
        for extension in options
            .cert_extensions
            .iter()
            .filter(|wanted| wanted.kind == "ssh" && wanted.mode == "extension")
        {
            let value = Template::parse(&extension.value)
                .ok()
                .and_then(|text| text.expand(&subject.traits).into_iter().next());
            ssh.extensions.extend(value.map(|value| (extension.name.clone(), value)));
        }
        let authority = self.user_authority();
        let ssh_cert = authority
            .ssh_ca()
            .and_then(|ca| ca.sign_user(ssh))
            .map_err(|error| sign_error("ssh_public_key", error))?
            .to_openssh()
            .map_err(AuthError::at("encode certificate"))?;

        let identity = TlsIdentity {
            user: subject.user.clone(),
            roles: names.clone(),
            logins: logins.clone(),
            traits: subject.traits.clone(),
            cluster: self.cluster().clone(),
            usage: Vec::new(),
            login_ip: subject.address,
            pinned_ip: pinned,
            database: None,
        };
        let tls_cert = authority
            .tls_ca()
            .and_then(|ca| ca.sign_client(&identity, keys.tls(), now, ttl))
            .map_err(|error| sign_error("tls_public_key", error))?;

        let valid_until = now + chrono::Duration::from_std(ttl).unwrap_or_default();
        let event = events::cert_create(
            "user",
            shared_events::Identity {
                user: subject.user.to_string(),
                roles: names.iter().map(ToString::to_string).collect(),
                logins: logins.iter().map(ToString::to_string).collect(),
                expires: valid_until.into(),
                route_to_cluster: self.cluster().to_string(),
                teleport_cluster: self.cluster().to_string(),
                traits: (&subject.traits).into(),
                client_ip: subject.address.map(|address| address.to_string()).unwrap_or_default(),
                ..shared_events::Identity::default()
            },
        );
        let reply = LoginReply {
            username: subject.user,
            ssh_cert,
            tls_cert: tls_cert.pem(),
            authorities: state.authorities.clone(),
            cluster: self.cluster().clone(),
            valid_until,
        };
        Ok((reply, event))
    }

    /// The roles of a subject. What a role denied that is gone is not known any more, so nothing is signed without it.
    pub(crate) fn subject_roles(&self, subject: &Subject) -> Result<RoleSet> {
        let state = self.current_state();
        if let Some(gone) = subject.roles.iter().find(|role| !state.roles.contains_key(*role)) {
            return Err(AuthError::denied(format!(
                "role \"{gone}\" of user \"{}\" does not exist any more",
                subject.user
            )));
        }
        self.check_user_lock(&subject.user, &subject.roles)?;
        let held = subject.roles.iter().filter_map(|role| state.roles.get(role).cloned());
        Ok(RoleSet::new(held.collect(), &subject.traits, &subject.user))
    }

    /// How long certificates of a subject live: no longer than wished for, than its roles allow, and than it may.
    pub(crate) fn subject_life(
        &self,
        subject: &Subject,
        roles: &RoleSet,
        ttl_seconds: Option<u64>,
    ) -> Result<Duration> {
        let wish = match ttl_seconds {
            Some(0) => return Err(AuthError::bad_request("ttl_seconds is 0")),
            Some(seconds) => Duration::from_secs(seconds),
            None => Duration::from(self.current_state().auth_preference.spec.default_session_ttl),
        };
        let mut ttl = wish.min(roles.max_session_ttl());
        if let Some(end) = subject.not_after {
            ttl = ttl.min((end - self.now()).to_std().unwrap_or_default());
        }
        if ttl.as_secs() == 0 {
            return Err(AuthError::denied("the roles leave no time for a session"));
        }
        Ok(ttl)
    }

    /// New certificates: for the caller until its login ends, or for any user when the administrator asks.
    pub async fn user_certs(&self, caller: &Caller, ask: UserCertsRequest) -> Result<LoginReply> {
        let itself = ask.user.as_ref().is_none_or(|user| user == caller.user_name());
        let subject = if caller.is_user() && itself {
            Subject {
                user: caller.user_name().clone(),
                roles: caller.roles().into_iter().cloned().collect(),
                traits: caller.traits(),
                address: Some(caller.address().ip().to_canonical()),
                not_after: Some(caller.identity().valid_until),
            }
        } else if caller.is_admin() {
            let Some(name) = ask.user else {
                return Err(AuthError::bad_request("user is required"));
            };
            let Some(Resource::User(account)) =
                self.store().resource(ResourceKind::User, name.as_str()).await?
            else {
                return Err(AuthError::not_found(format!("user \"{name}\" is not found")));
            };
            let now = self.now();
            if account.is_locked(now) || account.is_expired(now) {
                return Err(
                    ApiError::locked(format!("user \"{name}\" is locked or has expired")).into()
                );
            }
            // Nobody logged in, so there is no address to bind to.
            Subject {
                user: name,
                roles: account.spec.roles,
                traits: account.spec.traits,
                address: None,
                not_after: account.spec.expires,
            }
        } else {
            return Err(AuthError::denied("access denied to certificates of other users"));
        };
        let (reply, event) = match ask.database {
            Some(route) => {
                let key = tls_key("tls_public_key", &ask.tls_public_key)?;
                self.issue_database_user(subject, route, &key, ask.ttl_seconds)?
            }
            None => {
                let keys = Keys::parse(&ask.ssh_public_key, &ask.tls_public_key)?;
                self.issue_user(subject, &keys, ask.ttl_seconds)?
            }
        };
        self.record(vec![event]).await?;
        Ok(reply)
    }

    /// `tctl auth sign --host`: a certificate of role Node with exactly these names.
    pub async fn sign_host(&self, caller: &Caller, ask: HostCertRequest) -> Result<HostCertReply> {
        self.check(caller, "host_cert", Verb::Create)?;
        let ttl = match ask.ttl_seconds {
            Some(0) => return Err(AuthError::bad_request("ttl_seconds is 0")),
            other => other.map(Duration::from_secs),
        };
        let reply = self.host_certificate(&ask.hosts, &ask.public_key, SystemRole::Node, ttl)?;
        self.keep_signed(&ask.hosts, reply.valid_until).await?;
        tracing::info!(by = caller.name(), hosts = ask.hosts.join(","), "host certificate signed");
        Ok(reply)
    }

    /// The certificate of a proxy's inner server: role Proxy, whatever the name, and only for a proxy.
    pub async fn sign_proxy_host(
        &self,
        caller: &Caller,
        ask: ProxyHostCertRequest,
    ) -> Result<HostCertReply> {
        if !caller.is_proxy() {
            return Err(AuthError::denied("access denied"));
        }
        if let Some(bad) = ask.principals.iter().find(|name| HostName::new(name.as_str()).is_err())
        {
            let shown: String = bad.chars().take(64).collect();
            return Err(AuthError::bad_request(format!("{shown:?} is not a host name")));
        }
        self.host_certificate(
            &ask.principals,
            &ask.public_key,
            SystemRole::Proxy,
            Some(PROXY_HOST_LIFE),
        )
    }

    fn host_certificate(
        &self,
        hosts: &[String],
        public_key: &str,
        role: SystemRole,
        ttl: Option<Duration>,
    ) -> Result<HostCertReply> {
        if hosts.is_empty() {
            return Err(AuthError::bad_request("at least one host is required"));
        }
        if hosts.len() > limits::MAX_PRINCIPALS {
            return Err(AuthError::bad_request(format!(
                "more than {} hosts",
                limits::MAX_PRINCIPALS
            )));
        }
        let now = self.now();
        let spec = HostCertSpec {
            public_key: ssh_key(public_key)?,
            principals: hosts.to_vec(),
            role,
            cluster: self.cluster().clone(),
            now,
            ttl,
        };
        let certificate = self
            .host_authority()
            .ssh_ca()
            .and_then(|ca| ca.sign_host(spec))
            .map_err(|error| sign_error("host certificate", error))?
            .to_openssh()
            .map_err(AuthError::at("encode certificate"))?;
        let valid_until = ttl
            .and_then(|ttl| chrono::Duration::from_std(ttl).ok())
            .and_then(|ttl| now.checked_add_signed(ttl));
        Ok(HostCertReply { certificate, valid_until })
    }
}

/// What the caller got wrong is told; what went wrong here is not.
pub(crate) fn sign_error(field: &str, error: PkiError) -> AuthError {
    match error {
        PkiError::PublicKey
        | PkiError::UnsupportedKey(_)
        | PkiError::NoPrincipals
        | PkiError::Principal(_)
        | PkiError::TooManyPrincipals(_)
        | PkiError::Lifetime
        | PkiError::Name(_) => AuthError::bad_request(format!("{field}: {error}")),
        other => AuthError::internal("sign certificate", other),
    }
}

/// A password taken out of a request for hashing.
pub(crate) fn secret_text(secret: &Secret) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(secret.expose().to_owned())
}

/// The client's address as certificates write it.
pub(crate) fn client_ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}
