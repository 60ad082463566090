//! Tokens: who a client is, proved by a JWT (RFC 7519) signed with a key that we know.
//!
//! The header of a token is its bearer's word, so it decides nothing (RFC 8725): the algorithm belongs to
//! our key, `kid` only picks among our keys, `jku`, `jwk` and `x5u` are never looked at, and a `crit`
//! extension is one that we do not understand. RSA keys verify RS256, P-256 keys ES256, Ed25519 keys
//! EdDSA, and the development secret HS256; a JWKS never brings a shared secret.
//!
//! The clock is an argument, the keys come as text: `src/keys.rs` of the command reads files and URLs. No
//! token's text appears in `Debug`, in an error or in a log line.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::user::{DeviceId, UserId};

/// Clock skew that is forgiven between the issuer and us, in seconds.
pub const SKEW_SECONDS: u64 = 30;

/// How far ahead `exp` may lie by default, in seconds (`auth.max_token_life_s`).
pub const LIFE_SECONDS_MAX_DEFAULT: u64 = 86_400;

/// Longest token that is looked at, in bytes: it has to fit the head of an upgrade request.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Shortest RSA modulus, in bytes: 2,048 bits, as RFC 7518 section 3.3 asks.
const RSA_MODULUS_BYTES_MIN: usize = 256;

/// Shortest development secret, in bytes: RFC 7518 section 3.2 asks for as many bits as the hash has.
pub const SECRET_BYTES_MIN: usize = 32;

/// The `kid` of the development key.
const DEVELOPMENT_KEY_ID: &str = "development";

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who: `tenant` and `sub`.
    pub user: UserId,
    /// The device it was made for, if it is bound to one.
    pub device: Option<DeviceId>,
    /// When it ends. A token that was past its `exp` but within the skew ends with the skew.
    pub expires: Timestamp,
}

/// What is asked of every token beside its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The only `iss`, where set.
    pub issuer: Option<String>,
    /// An `aud` that must be among the token's, where set.
    pub audience: Option<String>,
    /// How far ahead `exp` may lie, in seconds.
    pub life_seconds_max: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { issuer: None, audience: None, life_seconds_max: LIFE_SECONDS_MAX_DEFAULT }
    }
}

/// The keys that sign our users' tokens, and what is asked of those.
pub struct KeySet {
    keys: Vec<Key>,
    policy: Policy,
    development: bool,
    skipped: Vec<SkippedKey>,
    unknown_keys: Arc<AtomicU64>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// A key of a JWKS that verifies no token here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the list, from 0.
    pub index: usize,
    /// Why.
    pub reason: &'static str,
}

/// Why a token was refused. No variant carries anything of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64url with JSON inside, or too long.
    #[error("the token is not a JWT")]
    Malformed,
    /// `typ` names something else than a JWT.
    #[error("the token's typ is not JWT")]
    WrongType,
    /// `crit` names an extension, and none is understood.
    #[error("the token has a critical extension, and none is supported")]
    CriticalExtension,
    /// No key of ours has that `kid` and algorithm, or there is no `kid` and not exactly one key.
    #[error("the token was signed with a key that is not known here")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// The claims are not of the right form, or one that is required is missing.
    #[error("the token's claims are incomplete: sub (1 to 64 bytes) and exp are required")]
    BadClaims,
    /// `exp` is over.
    #[error("the token has expired: get a fresh one")]
    Expired,
    /// `exp` is further ahead than allowed.
    #[error("the token lives too long: exp is further ahead than the server allows")]
    LivesTooLong,
    /// `nbf` is still ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is another.
    #[error("the token comes from another issuer")]
    WrongIssuer,
    /// `aud` does not name us.
    #[error("the token is meant for another audience")]
    WrongAudience,
}

/// Why a key set could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not a JSON Web Key Set (RFC 7517 section 5).
    #[error("not a JSON Web Key Set: {0}")]
    Malformed(String),
    /// No key in it can verify a token.
    #[error(
        "the key set has no usable key of {0}: it needs an RSA key of 2,048 bits or more, a P-256 or an \
         Ed25519 key"
    )]
    NoUsableKey(usize),
    /// Two keys of one algorithm have the same `kid`, or none.
    #[error("two {0} keys of the key set cannot be told apart: give each its own kid")]
    Ambiguous(&'static str),
    /// A development secret of too few bytes.
    #[error(
        "the development key has {0} bytes and needs {SECRET_BYTES_MIN}: delete the file and start again"
    )]
    ShortSecret(usize),
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys that cannot verify tokens here (for encryption, of another kind, too
    /// short, shared secrets) are left out and told by [`skipped`](Self::skipped).
    ///
    /// # Errors
    /// [`KeySetError`] if it is not one, or no key is usable, or two cannot be told apart.
    pub fn from_jwks(json: &str, policy: Policy) -> Result<Self, KeySetError> {
        let document: JwksDocument =
            serde_json::from_str(json).map_err(|error| KeySetError::Malformed(error.to_string()))?;
        let mut keys: Vec<Key> = Vec::new();
        let mut skipped = Vec::new();
        for (index, jwk) in document.keys.iter().enumerate() {
            match Key::from_jwk(jwk) {
                Ok(key) => {
                    if keys.iter().any(|other| other.algorithm == key.algorithm && other.id == key.id) {
                        return Err(KeySetError::Ambiguous(algorithm_name(key.algorithm)));
                    }
                    keys.push(key);
                }
                Err(reason) => skipped.push(SkippedKey { index, reason }),
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::NoUsableKey(document.keys.len()));
        }
        Ok(Self { keys, policy, development: false, skipped, unknown_keys: Arc::default() })
    }

    /// The key set of development: one shared secret, HS256. It is for one machine only: who serves beyond
    /// loopback must refuse to use it.
    ///
    /// # Errors
    /// [`KeySetError::ShortSecret`].
    pub fn development(secret: &[u8], life_seconds_max: u64) -> Result<Self, KeySetError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeySetError::ShortSecret(secret.len()));
        }
        let key = Key {
            id: Some(DEVELOPMENT_KEY_ID.to_owned()),
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(secret),
        };
        Ok(Self {
            keys: vec![key],
            policy: Policy { life_seconds_max, ..Policy::default() },
            development: true,
            skipped: Vec::new(),
            unknown_keys: Arc::default(),
        })
    }

    /// Whether this is the development key.
    pub fn is_development(&self) -> bool {
        self.development
    }

    /// How many keys verify tokens.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Keys of the JWKS that were left out.
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// Rises with each token that names a key not known here: a reason to fetch the key set anew, since
    /// the issuer may have rotated its key. Whoever replaces this set passes the counter on with
    /// [`counting_unknown_keys_in`](Self::counting_unknown_keys_in).
    pub fn unknown_keys(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unknown_keys)
    }

    /// The same set, with a counter that lives longer than it.
    pub fn counting_unknown_keys_in(mut self, counter: Arc<AtomicU64>) -> Self {
        self.unknown_keys = counter;
        self
    }

    /// Checks a token whole and says whose it is.
    ///
    /// # Errors
    /// [`TokenError`]: the client is `unauthorized`.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = decode_part(header).ok_or(TokenError::Malformed)?;
        header.check()?;
        let key = self.key_for(&header)?;
        // The library takes the algorithm from us; a signature that is not base64url is an error there.
        let valid = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, key.algorithm)
            .unwrap_or(false);
        if !valid {
            return Err(TokenError::BadSignature);
        }
        let claims: RawClaims = decode_part(payload).ok_or(TokenError::BadClaims)?;
        self.check_claims(&claims, now)
    }

    fn key_for(&self, header: &Header) -> Result<&Key, TokenError> {
        let mut candidates = self.keys.iter().filter(|key| {
            algorithm_name(key.algorithm) == header.alg
                && (header.kid.is_none() || header.kid.as_deref() == key.id.as_deref())
        });
        match (candidates.next(), candidates.next()) {
            (Some(key), None) => Ok(key),
            _ => {
                self.unknown_keys.fetch_add(1, Ordering::Relaxed);
                Err(TokenError::UnknownKey)
            }
        }
    }

    fn check_claims(&self, claims: &RawClaims, now: Timestamp) -> Result<Claims, TokenError> {
        let skew = SKEW_SECONDS * 1000;
        let expires = milliseconds(claims.exp).ok_or(TokenError::BadClaims)?;
        if expires.saturating_add(skew) <= now.0 {
            return Err(TokenError::Expired);
        }
        if expires
            > now.0.saturating_add(self.policy.life_seconds_max.saturating_mul(1000)).saturating_add(skew)
        {
            return Err(TokenError::LivesTooLong);
        }
        if let Some(not_before) = claims.nbf {
            let not_before = milliseconds(not_before).ok_or(TokenError::BadClaims)?;
            if not_before > now.0.saturating_add(skew) {
                return Err(TokenError::NotYetValid);
            }
        }
        if self.policy.issuer.is_some() && claims.iss != self.policy.issuer {
            return Err(TokenError::WrongIssuer);
        }
        if let Some(audience) = &self.policy.audience
            && !claims.aud.as_ref().is_some_and(|named| named.contains(audience))
        {
            return Err(TokenError::WrongAudience);
        }
        let user = UserId::new(&claims.tenant, &claims.sub).map_err(|_| TokenError::BadClaims)?;
        let device =
            claims.device.as_deref().map(DeviceId::new).transpose().map_err(|_| TokenError::BadClaims)?;
        let expires = if expires > now.0 { expires } else { expires + skew };
        Ok(Claims { user, device, expires: Timestamp(expires) })
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("keys", &self.keys.len())
            .field("development", &self.development)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Makes a development token that [`KeySet::development`] of the same secret accepts.
///
/// `life_seconds` counts from `now`; a set whose policy allows less refuses the token.
pub fn mint_development(
    secret: &[u8],
    user: &UserId,
    device: Option<&DeviceId>,
    now: Timestamp,
    life_seconds: u64,
) -> String {
    let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
    header.kid = Some(DEVELOPMENT_KEY_ID.to_owned());
    let issued = now.0 / 1000;
    let claims = MintedClaims {
        sub: user.sub(),
        tenant: user.tenant(),
        device: device.map(DeviceId::as_str),
        iat: issued,
        exp: issued.saturating_add(life_seconds),
    };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))
        .expect("strings and numbers are JSON, and HMAC takes a secret of any length")
}

#[derive(Serialize)]
struct MintedClaims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tenant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    iat: u64,
    exp: u64,
}

/// The parts of a token's header that are read at all.
#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

impl Header {
    fn check(&self) -> Result<(), TokenError> {
        // RFC 8725 section 3.11 and RFC 9068 section 2.1: a token for another use has another typ.
        if let Some(typ) = &self.typ {
            let name = typ.strip_prefix("application/").unwrap_or(typ);
            if !name.eq_ignore_ascii_case("jwt") && !name.eq_ignore_ascii_case("at+jwt") {
                return Err(TokenError::WrongType);
            }
        }
        if self.crit.is_some() { Err(TokenError::CriticalExtension) } else { Ok(()) }
    }
}

#[derive(Deserialize)]
struct RawClaims {
    sub: String,
    #[serde(default)]
    tenant: String,
    device: Option<String>,
    exp: f64,
    nbf: Option<f64>,
    iss: Option<String>,
    aud: Option<Audience>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn contains(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<JwkDocument>,
}

#[derive(Deserialize)]
struct JwkDocument {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Key {
    fn from_jwk(jwk: &JwkDocument) -> Result<Self, &'static str> {
        if jwk.r#use.as_deref().is_some_and(|usage| usage != "sig") {
            return Err("its use is not sig");
        }
        let (algorithm, decoding) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, rsa_key(jwk)?),
            ("EC", Some("P-256")) => (Algorithm::ES256, p256_key(jwk)?),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, ed25519_key(jwk)?),
            ("oct", _) => return Err("a shared secret has no place in a key set"),
            _ => return Err("its kind or curve is not supported"),
        };
        if jwk.alg.as_deref().is_some_and(|alg| alg != algorithm_name(algorithm)) {
            return Err("its alg is not the one used with its kind of key");
        }
        Ok(Self { id: jwk.kid.clone(), algorithm, decoding })
    }
}

fn rsa_key(jwk: &JwkDocument) -> Result<DecodingKey, &'static str> {
    let modulus = decode_base64(jwk.n.as_deref()).ok_or("its n is not base64url")?;
    let exponent = decode_base64(jwk.e.as_deref()).ok_or("its e is not base64url")?;
    let leading_zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    if modulus.len() - leading_zeros < RSA_MODULUS_BYTES_MIN {
        return Err("its modulus has fewer than 2,048 bits");
    }
    Ok(DecodingKey::from_rsa_raw_components(&modulus[leading_zeros..], &exponent))
}

fn p256_key(jwk: &JwkDocument) -> Result<DecodingKey, &'static str> {
    let x = decode_base64(jwk.x.as_deref()).filter(|x| x.len() == 32).ok_or("its x is not 32 bytes")?;
    let y = decode_base64(jwk.y.as_deref()).filter(|y| y.len() == 32).ok_or("its y is not 32 bytes")?;
    // The uncompressed point of SEC 1 section 2.3.3.
    let point = [&[4u8][..], &x, &y].concat();
    Ok(DecodingKey::from_ec_der(&point))
}

fn ed25519_key(jwk: &JwkDocument) -> Result<DecodingKey, &'static str> {
    let x = decode_base64(jwk.x.as_deref()).filter(|x| x.len() == 32).ok_or("its x is not 32 bytes")?;
    Ok(DecodingKey::from_ed_der(&x))
}

fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
        _ => "unsupported",
    }
}

fn decode_base64(text: Option<&str>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

fn decode_part<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// A NumericDate (RFC 7519 section 2: seconds, possibly with a fraction) in milliseconds.
fn milliseconds(seconds: f64) -> Option<u64> {
    // The cast saturates, so that a date beyond all time stays far ahead.
    (seconds >= 0.0).then_some((seconds * 1000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::{self as crypto, KeyPair as _};
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";

    fn seconds(offset: i64) -> i64 {
        (NOW.0 / 1000) as i64 + offset
    }

    fn good_claims() -> Value {
        json!({"sub": "alice", "exp": seconds(3600)})
    }

    /// A signer of each kind with its public half as a JWK.
    struct Issuer {
        rsa: EncodingKey,
        ec: EncodingKey,
        ed: EncodingKey,
        jwks: Value,
    }

    fn base64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn issuer() -> Issuer {
        let rsa = crypto::RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let rsa_public = rsa.public_key();
        let random = aws_lc_rs::rand::SystemRandom::new();
        let ec_document =
            crypto::EcdsaKeyPair::generate_pkcs8(&crypto::ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec =
            crypto::EcdsaKeyPair::from_pkcs8(&crypto::ECDSA_P256_SHA256_FIXED_SIGNING, ec_document.as_ref())
                .unwrap();
        let point = ec.public_key().as_ref();
        let ed_document = crypto::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed = crypto::Ed25519KeyPair::from_pkcs8(ed_document.as_ref()).unwrap();
        let rsa_pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
        Issuer {
            rsa: EncodingKey::from_rsa_der(&rsa_private(rsa_pkcs8.as_ref())),
            ec: EncodingKey::from_ec_der(ec_document.as_ref()),
            ed: EncodingKey::from_ed_der(ed_document.as_ref()),
            jwks: json!({"keys": [
                {"kty": "RSA", "kid": "rsa-1", "use": "sig", "alg": "RS256",
                 "n": base64(rsa_public.modulus().big_endian_without_leading_zero()),
                 "e": base64(rsa_public.exponent().big_endian_without_leading_zero())},
                {"kty": "EC", "crv": "P-256", "kid": "ec-1",
                 "x": base64(&point[1..33]), "y": base64(&point[33..])},
                {"kty": "OKP", "crv": "Ed25519", "kid": "ed-1", "x": base64(ed.public_key().as_ref())},
            ]}),
        }
    }

    /// The PKCS #1 key inside a PKCS #8 one: the last octet string, whose head is 26 bytes in all for keys
    /// of this length.
    fn rsa_private(pkcs8: &[u8]) -> Vec<u8> {
        pkcs8[26..].to_vec()
    }

    fn sign(algorithm: Algorithm, kid: Option<&str>, claims: &Value, key: &EncodingKey) -> String {
        let mut header = jsonwebtoken::Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, key).unwrap()
    }

    /// A token with a header of any shape, signed as HS256 with `secret`.
    fn sign_with_header(header: &Value, claims: &Value, secret: &[u8]) -> String {
        let message =
            format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
        let signature = jsonwebtoken::crypto::sign(
            message.as_bytes(),
            &EncodingKey::from_secret(secret),
            Algorithm::HS256,
        );
        format!("{message}.{}", signature.unwrap())
    }

    fn development() -> KeySet {
        KeySet::development(SECRET, LIFE_SECONDS_MAX_DEFAULT).unwrap()
    }

    fn verify_claims(claims: &Value) -> Result<Claims, TokenError> {
        development().verify(&sign_with_header(&json!({"alg": "HS256"}), claims, SECRET), NOW)
    }

    #[test]
    fn a_minted_token_names_its_user_device_and_end() {
        let user = UserId::new("acme", "zoë").unwrap();
        let device = DeviceId::new("phone").unwrap();
        let token = mint_development(SECRET, &user, Some(&device), NOW, 60);
        let claims = development().verify(&token, NOW).unwrap();
        let expires = Timestamp(NOW.0 + 60_000);
        assert_eq!(claims, Claims { user, device: Some(device), expires });
    }

    #[test]
    fn each_kind_of_key_verifies_its_own_algorithm() {
        let issuer = issuer();
        let set = KeySet::from_jwks(&issuer.jwks.to_string(), Policy::default()).unwrap();
        assert_eq!((set.key_count(), set.skipped().len()), (3, 0));
        for (algorithm, kid, key) in [
            (Algorithm::RS256, "rsa-1", &issuer.rsa),
            (Algorithm::ES256, "ec-1", &issuer.ec),
            (Algorithm::EdDSA, "ed-1", &issuer.ed),
        ] {
            for kid in [Some(kid), None] {
                let token = sign(algorithm, kid, &good_claims(), key);
                assert_eq!(set.verify(&token, NOW).unwrap().user.sub(), "alice", "{algorithm:?} {kid:?}");
                let (head, signature) = token.rsplit_once('.').unwrap();
                let other = if signature.starts_with('A') { "B" } else { "A" };
                let bent = format!("{head}.{other}{}", &signature[1..]);
                assert_eq!(set.verify(&bent, NOW), Err(TokenError::BadSignature), "{algorithm:?}");
            }
        }
    }

    // S-A1 from here.

    #[test]
    fn the_algorithm_none_is_refused_in_every_spelling() {
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let head = base64(json!({"alg": alg}).to_string().as_bytes());
            let payload = base64(good_claims().to_string().as_bytes());
            for token in [format!("{head}.{payload}."), format!("{head}.{payload}")] {
                assert!(development().verify(&token, NOW).is_err(), "{alg}");
            }
        }
    }

    #[test]
    fn a_public_key_is_no_shared_secret() {
        let issuer = issuer();
        let set = KeySet::from_jwks(&issuer.jwks.to_string(), Policy::default()).unwrap();
        for jwk in issuer.jwks["keys"].as_array().unwrap() {
            for part in ["n", "x"] {
                let Some(text) = jwk[part].as_str() else { continue };
                for secret in [text.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(text).unwrap()] {
                    let header = json!({"alg": "HS256", "kid": jwk["kid"]});
                    let token = sign_with_header(&header, &good_claims(), &secret);
                    assert_eq!(set.verify(&token, NOW), Err(TokenError::UnknownKey));
                }
            }
        }
    }

    #[test]
    fn an_unknown_kid_is_refused_and_counted() {
        let issuer = issuer();
        let set = KeySet::from_jwks(&issuer.jwks.to_string(), Policy::default()).unwrap();
        let kids = ["rsa-2", "", "../../etc/passwd", "' OR 1=1 --", "rsa-1\0"];
        for kid in kids {
            let token = sign(Algorithm::RS256, Some(kid), &good_claims(), &issuer.rsa);
            assert_eq!(set.verify(&token, NOW), Err(TokenError::UnknownKey), "{kid}");
        }
        assert_eq!(set.unknown_keys().load(Ordering::Relaxed), kids.len() as u64);
        // Another key's kid does not help either: its algorithm is another.
        let token = sign(Algorithm::RS256, Some("ec-1"), &good_claims(), &issuer.rsa);
        assert_eq!(set.verify(&token, NOW), Err(TokenError::UnknownKey));
    }

    #[test]
    fn a_key_in_the_header_is_not_used() {
        let issuer = issuer();
        let theirs = b"an attacker's own key, 32 bytes!";
        let header = json!({
            "alg": "HS256",
            "jwk": {"kty": "oct", "k": base64(theirs)},
            "jku": "https://evil.example/keys",
            "x5u": "https://evil.example/cert",
        });
        let token = sign_with_header(&header, &good_claims(), theirs);
        assert_eq!(development().verify(&token, NOW), Err(TokenError::BadSignature));
        let set = KeySet::from_jwks(&issuer.jwks.to_string(), Policy::default()).unwrap();
        assert_eq!(set.verify(&token, NOW), Err(TokenError::UnknownKey));
    }

    #[test]
    fn without_a_kid_the_key_must_be_the_only_one_of_its_algorithm() {
        let (one, other) = (issuer(), issuer());
        let mut second = other.jwks["keys"][1].clone();
        second["kid"] = json!("ec-2");
        let jwks = json!({"keys": [one.jwks["keys"][1], second]}).to_string();
        let set = KeySet::from_jwks(&jwks, Policy::default()).unwrap();
        let token = sign(Algorithm::ES256, None, &good_claims(), &one.ec);
        assert_eq!(set.verify(&token, NOW), Err(TokenError::UnknownKey));
        for (kid, key) in [("ec-1", &one.ec), ("ec-2", &other.ec)] {
            let token = sign(Algorithm::ES256, Some(kid), &good_claims(), key);
            assert!(set.verify(&token, NOW).is_ok(), "two live keys during a rotation");
        }
    }

    #[test]
    fn a_critical_extension_is_refused() {
        let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
        let token = sign_with_header(&header, &good_claims(), SECRET);
        assert_eq!(development().verify(&token, NOW), Err(TokenError::CriticalExtension));
    }

    #[test]
    fn a_key_set_takes_signing_keys_only() {
        let issuer = issuer();
        let mut short = issuer.jwks["keys"][0].clone();
        short["n"] = json!(base64(&[0xff; 128]));
        let mut sealing = issuer.jwks["keys"][1].clone();
        sealing["use"] = json!("enc");
        let mut renamed = issuer.jwks["keys"][0].clone();
        renamed["alg"] = json!("PS256");
        let secret = json!({"kty": "oct", "k": base64(SECRET), "alg": "HS256"});
        let curve = json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"});
        let bad = [short, sealing, renamed, secret, curve];
        let alone = json!({"keys": bad}).to_string();
        assert_eq!(
            KeySet::from_jwks(&alone, Policy::default()).unwrap_err(),
            KeySetError::NoUsableKey(bad.len())
        );
        let mut with_one = bad.to_vec();
        with_one.push(issuer.jwks["keys"][2].clone());
        let set = KeySet::from_jwks(&json!({"keys": with_one}).to_string(), Policy::default()).unwrap();
        assert_eq!((set.key_count(), set.skipped().len()), (1, bad.len()));
        assert!(matches!(KeySet::from_jwks("[]", Policy::default()), Err(KeySetError::Malformed(_))));
        let twice = json!({"keys": [issuer.jwks["keys"][2], issuer.jwks["keys"][2]]}).to_string();
        assert_eq!(
            KeySet::from_jwks(&twice, Policy::default()).unwrap_err(),
            KeySetError::Ambiguous("EdDSA")
        );
    }

    // S-A2 from here.

    #[test]
    fn the_type_must_be_a_jwt() {
        for (typ, good) in
            [("JWT", true), ("at+jwt", true), ("application/at+jwt", true), ("dpop+jwt", false)]
        {
            let token = sign_with_header(&json!({"alg": "HS256", "typ": typ}), &good_claims(), SECRET);
            assert_eq!(development().verify(&token, NOW).is_ok(), good, "{typ}");
        }
    }

    #[test]
    fn issuer_and_audience_are_checked_where_set() {
        let issuer = issuer();
        let policy = Policy {
            issuer: Some("https://id.example".into()),
            audience: Some("ringway".into()),
            ..Policy::default()
        };
        let set = KeySet::from_jwks(&issuer.jwks.to_string(), policy).unwrap();
        let verdict = |iss: Value, aud: Value| {
            let claims = json!({"sub": "alice", "exp": seconds(60), "iss": iss, "aud": aud});
            set.verify(&sign(Algorithm::EdDSA, Some("ed-1"), &claims, &issuer.ed), NOW).map(|_| ())
        };
        let iss = json!("https://id.example");
        assert_eq!(verdict(iss.clone(), json!("ringway")), Ok(()));
        assert_eq!(verdict(iss.clone(), json!(["other", "ringway"])), Ok(()));
        assert_eq!(verdict(iss.clone(), json!("ringway.evil")), Err(TokenError::WrongAudience));
        assert_eq!(verdict(iss.clone(), json!([])), Err(TokenError::WrongAudience));
        assert_eq!(verdict(iss, Value::Null), Err(TokenError::WrongAudience));
        assert_eq!(verdict(json!("https://id.example.evil"), json!("ringway")), Err(TokenError::WrongIssuer));
        assert_eq!(verdict(Value::Null, json!("ringway")), Err(TokenError::WrongIssuer));
    }

    #[test]
    fn times_are_checked_with_thirty_seconds_of_skew() {
        let exp = |offset: i64| verify_claims(&json!({"sub": "a", "exp": seconds(offset)})).map(|_| ());
        assert_eq!(exp(-31), Err(TokenError::Expired));
        assert_eq!(exp(-29), Ok(()));
        assert_eq!(exp(86_400 + 29), Ok(()));
        assert_eq!(exp(86_400 + 31), Err(TokenError::LivesTooLong));
        assert_eq!(exp(10 * 365 * 86_400), Err(TokenError::LivesTooLong));
        let nbf = |offset: i64| {
            verify_claims(&json!({"sub": "a", "exp": seconds(600), "nbf": seconds(offset)})).map(|_| ())
        };
        assert_eq!(nbf(29), Ok(()));
        assert_eq!(nbf(31), Err(TokenError::NotYetValid));
    }

    #[test]
    fn a_token_accepted_within_the_skew_ends_with_it() {
        let claims = verify_claims(&json!({"sub": "a", "exp": seconds(-10)})).unwrap();
        assert_eq!(claims.expires, Timestamp(NOW.0 + 20_000));
    }

    #[test]
    fn exp_is_required_and_a_number() {
        for exp in [Value::Null, json!("4000000000"), json!(-1), json!([1])] {
            let verdict = verify_claims(&json!({"sub": "a", "exp": exp}));
            assert_eq!(verdict, Err(TokenError::BadClaims), "{exp}");
        }
        assert_eq!(verify_claims(&json!({"sub": "a"})), Err(TokenError::BadClaims));
        assert!(verify_claims(&json!({"sub": "a", "exp": seconds(5) as f64 + 0.5})).is_ok());
    }

    #[test]
    fn names_have_1_to_64_bytes() {
        let exp = seconds(60);
        for (claims, good) in [
            (json!({"sub": "é".repeat(32), "exp": exp}), true),
            (json!({"sub": "é".repeat(33), "exp": exp}), false),
            (json!({"sub": "", "exp": exp}), false),
            (json!({"exp": exp}), false),
            (json!({"sub": "a", "exp": exp, "tenant": "t".repeat(65)}), false),
            (json!({"sub": "a", "exp": exp, "device": ""}), false),
            (json!({"sub": "a", "exp": exp, "device": "d"}), true),
        ] {
            assert_eq!(verify_claims(&claims).is_ok(), good, "{claims}");
        }
    }

    #[test]
    fn debug_and_errors_show_no_key_and_no_token() {
        let set = development();
        let token = mint_development(SECRET, &UserId::new("", "alice").unwrap(), None, NOW, 60);
        let shown = format!("{set:?} {:?} {}", set.verify(&token, NOW), TokenError::BadSignature);
        assert!(!shown.contains(token.split('.').next_back().unwrap()));
        assert!(!shown.contains("thirty-two"));
    }

    #[test]
    fn any_text_is_refused_without_a_panic() {
        for text in ["", ".", "..", "...", "a.b.c", "e30.e30.", "e30.e30.e30", "é.é.é", &"a.".repeat(9000)]
        {
            assert!(development().verify(text, NOW).is_err(), "{text:?}");
        }
        assert_eq!(KeySet::development(b"short", 60).unwrap_err(), KeySetError::ShortSecret(5));
    }
}
