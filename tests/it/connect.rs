//! Connecting by consent, over real sockets of a vendor that is played: who may, what is stored, and what is not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use biometric_bridge::error::Result;
use biometric_bridge::hydrator::connect::door::Door;
use biometric_bridge::hydrator::connect::subscription::{Keeper, Kept, Looked};
use biometric_bridge::hydrator::connect::withdraw::{Withdrawn, withdraw};
use biometric_bridge::hydrator::connect::{Desk, Settings, link};
use biometric_bridge::hydrator::fetch::{Base, Fetcher, Limits};
use biometric_bridge::hydrator::tokens::{Client, Keyring};
use biometric_bridge::model::id::{ConnectionId, User};
use biometric_bridge::model::time::Micros;
use biometric_bridge::stream::clock::{Stopwatch, now_us};
use biometric_bridge::stream::connecting::{Begun, Consents, Found, Returned};
use biometric_bridge::stream::hydration::{Pair, Stored, Vault};
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors;
use biometric_bridge::vendors::wire::hmac::Key;
use http::request::Parts;
use http_body_util::BodyExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::played::{SECRET, Server};
use crate::ports::{ONE, Rows, Safe};

const KEY: &str = "not-a-secret-test-key, thirty-two bytes";
const PUBLIC: &str = "https://bridge.example.com";
const PROFILE: &str = "developer/v2/user/profile/basic";

/// What happened, in order.
type Story = Arc<Mutex<Vec<String>>>;
/// The browser that a state counts in, its vendor, and for whom.
type Open = BTreeMap<String, (String, String, User)>;

/// Consents in memory: the n-th is `canary-state-n`.
#[derive(Clone, Default)]
struct Asked {
    open: Arc<Mutex<Open>>,
    begun: Arc<Mutex<usize>>,
    story: Story,
}

impl Consents for Asked {
    async fn begin(&self, vendor: &str, user: &User, _lives: Duration) -> Result<Begun> {
        let mut begun = self.begun.lock().unwrap();
        *begun += 1;
        let (state, browser) = (format!("canary-state-{begun}"), format!("canary-browser-{begun}"));
        let kept = (browser.clone(), vendor.to_owned(), user.clone());
        self.open.lock().unwrap().insert(state.clone(), kept);
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into();
        Ok(Begun { state: state.into(), browser: browser.into(), verifier })
    }

    async fn end(&self, vendor: &str, state: &str, browser: &str) -> Result<Option<Returned>> {
        let mut open = self.open.lock().unwrap();
        let fits = open.get(state).is_some_and(|(kept, of, _)| kept == browser && of == vendor);
        let Some((_, _, user)) = open.remove(state).filter(|_| fits) else { return Ok(None) };
        Ok(Some(Returned { user, verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into() }))
    }

    async fn find(&self, vendor: &str, vendor_user: &str, user: &User) -> Result<Found> {
        let connection = ConnectionId::derive(vendor, vendor_user, user);
        Ok(Found { connection, fed_until: None })
    }

    async fn connect(
        &self,
        vendor: &str,
        vendor_user: &str,
        user: &User,
        found: Found,
    ) -> Result<usize> {
        let told = format!("{vendor} {vendor_user} is {user} by {}", found.connection);
        self.story.lock().unwrap().push(told);
        Ok(0)
    }

    async fn connected(&self, _vendor: &str) -> Result<Vec<ConnectionId>> {
        Ok(vec![ONE])
    }

    async fn subscribed(
        &self,
        vendor: &str,
        made: &[ConnectionId],
        all_at: Option<Micros>,
    ) -> Result<()> {
        let all = if all_at.is_some() { "all" } else { "not all" };
        self.story.lock().unwrap().push(format!("{vendor}: {} made anew, {all} there", made.len()));
        Ok(())
    }

    async fn turn(&self, _name: &str, _lives: Duration) -> Result<bool> {
        Ok(true)
    }
}

/// A vault that tells what it is given.
#[derive(Clone, Default)]
struct Told(Story);

impl Vault for Told {
    async fn read(&self, _connection: ConnectionId) -> Result<Option<Stored>> {
        Ok(None)
    }

    async fn store(
        &self,
        vendor: &str,
        connection: ConnectionId,
        instead_of: i64,
        pair: &Pair,
        lives: Option<Duration>,
    ) -> Result<bool> {
        let refresh = pair.refresh.as_ref().map(|refresh| refresh.expose_secret());
        let told = format!(
            "{vendor} {connection} has {} {refresh:?} {lives:?} for {instead_of}",
            pair.access.expose_secret()
        );
        self.0.lock().unwrap().push(told);
        Ok(true)
    }

    async fn begin_renewal(&self, _: ConnectionId, _: i64, _: Duration) -> Result<bool> {
        Ok(false)
    }

    async fn end_renewal(&self, _: ConnectionId, _: i64, _: bool) -> Result<()> {
        Ok(())
    }

    async fn limited(&self, _: ConnectionId) -> Result<()> {
        Ok(())
    }
}

fn fetcher() -> Fetcher {
    let limits = Limits {
        connect: Duration::from_millis(300),
        first_byte: Duration::from_millis(400),
        whole: Duration::from_millis(800),
        body_bytes: 1 << 20,
    };
    Fetcher::new(limits).expect("a client")
}

/// A vendor at the server: its API at one path, its tokens at another.
fn desk(name: &'static str, server: &Server, api: &str, token: &str) -> Desk {
    let vendor = vendors::find(name).expect("a vendor");
    let url = server.at(token);
    let (id, api_of) = ("our app".to_owned(), vendor.api().expect("an API"));
    let client = Client { url, scope: None, id, secret: SECRET.into(), manner: api_of.manner() };
    Desk {
        name,
        api: api_of,
        consent: vendor.consent().expect("consent"),
        base: server.at(api),
        authorise: Base::parse("https://vendor.example.com/auth").expect("https"),
        client,
    }
}

struct World {
    server: Server,
    asked: Asked,
    story: Story,
    door: Door<Asked, Told, Rows>,
}

impl World {
    async fn new() -> Self {
        Self::at("/developer", "/token").await
    }

    async fn at(api: &str, token: &str) -> Self {
        crate::leak::listen();
        let server = Server::start().await;
        server.documents.lock().unwrap().insert(
            PROFILE.to_owned(),
            r#"{"user_id":481516,"email":"canary@example.com","first_name":"Canary"}"#.to_owned(),
        );
        let asked = Asked::default();
        let mut desks: Vec<Desk> =
            ["whoop", "garmin", "polar"].map(|name| desk(name, &server, api, token)).into();
        desks.push(desk("withings", &server, "", "/wrapped"));
        let settings = Settings {
            address: None,
            public_url: Some(PUBLIC.to_owned()),
            consent_s: 600,
            link_s: 60,
            subscriptions_s: 60,
        };
        let door = Door {
            consents: asked.clone(),
            vault: Told(Arc::clone(&asked.story)),
            queue: Rows::default(),
            fetcher: fetcher(),
            kept: vec![own(&server)],
            desks,
            key: Key::new(KEY.as_bytes()),
            public: Base::parse(PUBLIC).expect("https"),
            settings,
            speed: 1,
            metrics: Metrics::of(&["whoop"]),
        };
        Self { server, story: Arc::clone(&asked.story), asked, door }
    }

    async fn get(&self, uri: &str, cookie: &str) -> Answer {
        self.call("GET", uri, cookie).await
    }

    async fn call(&self, method: &str, uri: &str, cookie: &str) -> Answer {
        let request = http::Request::builder().method(method).uri(uri).header("cookie", cookie);
        let (head, ()): (Parts, ()) = request.body(()).expect("a request").into_parts();
        let response = self.door.answer(&head).await;
        let text = |name: &str| {
            let value = response.headers().get(name);
            value.map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
        };
        let (location, cookie) = (text("location"), text("set-cookie"));
        assert_eq!(text("cache-control"), "no-store");
        assert_eq!(text("referrer-policy"), "no-referrer");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body = String::from_utf8(body.to_vec()).expect("text");
        Answer { status, location, cookie, body }
    }

    /// Follows a link; what the browser then has.
    async fn follow(&self, vendor: &str) -> Answer {
        let answer = self.get(&valid(vendor), "").await;
        assert_eq!(answer.status, 302, "{}", answer.body);
        answer
    }

    fn told(&self) -> Vec<String> {
        self.story.lock().unwrap().clone()
    }
}

struct Answer {
    status: u16,
    location: String,
    cookie: String,
    body: String,
}

impl Answer {
    fn kept(&self) -> &str {
        self.cookie.split(';').next().expect("a value")
    }
}

fn user() -> User {
    User::parse("user-1").expect("a user")
}

fn valid(vendor: &str) -> String {
    link::make(&KEY.into(), vendor, &user(), now_us() / 1_000_000 + 60)
}

/// The first person comes back, with the code that the played vendor takes once.
const BACK: &str = "/connect/whoop/callback?state=canary-state-1&code=canary-code-1";

#[tokio::test]
async fn a_person_connects() {
    let world = World::new().await;
    let asked = world.follow("whoop").await;
    let expected = "https://vendor.example.com/auth?response_type=code&client_id=our+app\
        &redirect_uri=https%3A%2F%2Fbridge.example.com%2Fconnect%2Fwhoop%2Fcallback\
        &state=canary-state-1&scope=offline+read%3Arecovery+";
    assert!(asked.location.starts_with(expected), "{}", asked.location);
    assert!(!asked.location.contains("challenge"), "WHOOP has no PKCE");
    let cookie = "connect=canary-browser-1; Path=/connect/whoop/callback; Max-Age=600; HttpOnly; \
        SameSite=Lax; Secure";
    assert_eq!(asked.cookie, cookie);
    assert_eq!(world.server.asked.lock().unwrap().len(), 0, "nobody is asked yet");
    let done = world.get(BACK, asked.kept()).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let connection = ConnectionId::derive("whoop", "481516", &user());
    let stored = format!(
        "whoop {connection} has canary-access-1 Some(\"canary-refresh-1\") Some(3600s) for 0"
    );
    let held = format!("whoop 481516 is user-1 by {connection}");
    assert_eq!(world.told(), [stored, held], "the tokens first");
    let asked = world.server.asked.lock().unwrap().clone();
    let form = "grant_type=authorization_code&code=canary-code-1\
        &redirect_uri=https%3A%2F%2Fbridge.example.com%2Fconnect%2Fwhoop%2Fcallback\
        &client_id=our+app&client_secret=not%26a%2Bcanary-secret";
    assert!(asked[0].ends_with(form), "{}", asked[0]);
    assert!(asked[1].to_lowercase().contains("authorization: bearer canary-access-1"));
}

#[tokio::test]
async fn an_answer_counts_once_in_its_browser_and_for_its_vendor() {
    let world = World::new().await;
    let asked = world.follow("whoop").await;
    for (uri, cookie) in [
        (BACK.replace("state-1", "state-9"), asked.kept()),
        (BACK.replace("state=", "other="), asked.kept()),
        (format!("{BACK}&state=canary-state-1"), asked.kept()),
        (BACK.to_owned(), ""),
    ] {
        let refused = world.get(&uri, cookie).await;
        assert_eq!(refused.status, 400, "{uri} {cookie}");
    }
    assert_eq!(world.get(BACK, asked.kept()).await.status, 200, "and the person's own counts");
    let told = world.told();
    let again = world.get(BACK, asked.kept()).await;
    assert_eq!(again.status, 400);
    for (uri, cookie) in [
        ("/connect/whoop/callback?state=canary-state-2&code=canary-code-1", "connect=another"),
        (
            "/connect/garmin/callback?state=canary-state-3&code=canary-code-1",
            "connect=canary-browser-3",
        ),
    ] {
        world.follow("whoop").await;
        assert_eq!(world.get(uri, cookie).await.status, 400, "{uri}");
    }
    assert_eq!(world.told(), told, "nothing is stored");
    assert_eq!(world.server.count("token"), 1, "and nothing asked");
}

/// The vendor refuses a code that was used, or that is none.
#[tokio::test]
async fn a_code_counts_once() {
    let world = World::new().await;
    for (number, status) in [(1, 200), (2, 400)] {
        let asked = world.follow("whoop").await;
        let back = BACK.replace("state-1", &format!("state-{number}"));
        assert_eq!(world.get(&back, asked.kept()).await.status, status, "{number}");
    }
    assert_eq!(world.told().len(), 2, "of the first alone");
}

#[tokio::test]
async fn who_does_not_agree_is_asked_no_more() {
    let world = World::new().await;
    let asked = world.follow("whoop").await;
    let denied = "/connect/whoop/callback?state=canary-state-1&error=access_denied\
        &error_description=canary";
    assert_eq!(world.get(denied, asked.kept()).await.status, 403);
    assert_eq!(world.get(BACK, asked.kept()).await.status, 400, "the state is used");
    let asked = world.follow("whoop").await;
    let broken = "/connect/whoop/callback?state=canary-state-2&error=canary";
    assert_eq!(world.get(broken, asked.kept()).await.status, 502);
    let asked = world.follow("whoop").await;
    let both =
        "/connect/whoop/callback?state=canary-state-3&error=access_denied&code=canary-code-1";
    assert_eq!(world.get(both, asked.kept()).await.status, 400);
    assert!(world.told().is_empty() && world.server.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_vendor_that_misbehaves_connects_nobody() {
    let ways = ["/html", "/down", "/hang", "/elsewhere", "/cut", "/endless", "/drip", "/packed"];
    let mut worlds: Vec<(String, World)> = Vec::new();
    for way in ways {
        // `packed` is JSON to who unpacks; a token endpoint's answer is simply not JSON then.
        worlds.push((format!("token {way}"), World::at("/developer", way).await));
        worlds.push((format!("profile {way}"), World::at(way, "/token").await));
    }
    for way in ["/missing", "/stale", "/forbidden", "/record"] {
        worlds.push((format!("profile {way}"), World::at(way, "/token").await));
    }
    for (way, world) in worlds {
        let asked = world.follow("whoop").await;
        let watch = Stopwatch::start();
        let failed = world.get(BACK, asked.kept()).await;
        assert_eq!(failed.status, 502, "{way}");
        assert!(watch.elapsed() < Duration::from_secs(3), "{way}");
        assert!(world.told().is_empty(), "{way}: {:?}", world.told());
        assert_eq!(world.get(BACK, asked.kept()).await.status, 400, "{way}: the state is used");
    }
}

#[tokio::test]
async fn a_link_is_an_operator_s_word() {
    let world = World::new().await;
    let ended = link::make(&KEY.into(), "whoop", &user(), now_us() / 1_000_000 - 1);
    for (uri, status) in [
        (valid("whoop").replace("user-1", "user-2"), 403),
        (ended, 403),
        ("/connect/whoop".to_owned(), 403),
        (valid("whoop").replace("whoop", "garmin"), 403),
        (valid("whoop").replace("whoop", "terra"), 404),
        ("/connect/whoop/back".to_owned(), 404),
        ("/connect/whoop/callback/x".to_owned(), 404),
        ("/webhooks/whoop".to_owned(), 404),
        ("/".to_owned(), 404),
    ] {
        assert_eq!(world.get(&uri, "").await.status, status, "{uri}");
    }
    assert_eq!(world.call("POST", &valid("whoop"), "").await.status, 405);
    assert_eq!(*world.asked.begun.lock().unwrap(), 0, "nothing is begun");
}

/// Where a vendor has PKCE, what the browser carries is checked by what it never saw.
#[tokio::test]
async fn a_verifier_is_proven() {
    let world = World::new().await;
    world.server.documents.lock().unwrap().insert(
        "developer/user/id".to_owned(),
        r#"{"userId":"d3315b1072421d0dd7c8f6b8e1de4df8"}"#.to_owned(),
    );
    let asked = world.follow("garmin").await;
    let challenge = "&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
        &code_challenge_method=S256";
    assert!(asked.location.ends_with(challenge), "{}", asked.location);
    assert!(!asked.location.contains("dBjftJeZ4CVP") && !asked.cookie.contains("dBjftJeZ4CVP"));
    let back = BACK.replace("whoop", "garmin");
    assert_eq!(world.get(&back, asked.kept()).await.status, 200);
    let exchange = world.server.asked.lock().unwrap()[0].clone();
    let verifier = "&code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk&";
    assert!(exchange.contains(verifier), "{exchange}");
}

/// Polar says with the tokens whose they are, knows the app by its password, and wants people registered.
#[tokio::test]
async fn a_person_is_registered_where_the_vendor_wants_it() {
    let world = World::new().await;
    let asked = world.follow("polar").await;
    let back = BACK.replace("whoop", "polar");
    let done = world.get(&back, asked.kept()).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let asked = world.server.asked.lock().unwrap().clone();
    assert!(asked[0].to_lowercase().contains("authorization: basic "), "{}", asked[0]);
    assert!(!asked[0].contains("client_secret"), "{}", asked[0]);
    assert!(asked[1].starts_with("POST /developer/v3/users "), "{}", asked[1]);
    let connection = ConnectionId::derive("polar", "62713944", &user());
    assert!(asked[1].ends_with(&format!("{{\"member-id\":\"{connection}\"}}")), "{}", asked[1]);
    assert_eq!(world.told().len(), 2);
}

#[tokio::test]
async fn nothing_of_a_consent_is_told() {
    let mut pages = String::new();
    for (api, token) in [("/developer", "/token"), ("/html", "/token"), ("/developer", "/down")] {
        let world = World::at(api, token).await;
        let asked = world.follow("whoop").await;
        for uri in [BACK, BACK, "/connect/whoop?user=canary&signature=canary"] {
            let answer = world.get(uri, asked.kept()).await;
            pages.push_str(&(answer.body + &answer.location + &answer.cookie));
        }
        pages.push_str(&world.door.metrics.text());
    }
    let logged = crate::leak::logged();
    assert!(logged.contains("a person connected"), "{logged}");
    assert!(logged.contains("a person could not connect"), "{logged}");
    for (place, text) in [("a page", &pages), ("the log", &logged)] {
        assert!(!text.to_lowercase().contains("canary"), "{place}: {text}");
    }
}

// ── giving back ────────────────────────────────────────────────────────────────────────────────

async fn give_back(server: &Server, api: &str) -> Result<Withdrawn> {
    let desk = desk("whoop", server, api, "/token");
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), Some((60, 3_540)));
    let clients = [("whoop".to_owned(), desk.client.clone())].into();
    let keyring = Keyring::new(safe, fetcher(), clients, Metrics::of(&["whoop"]), 1);
    withdraw(&fetcher(), &Rows::default(), &keyring, &desk, (ONE, "481516"), 1).await
}

#[tokio::test]
async fn a_consent_is_given_back_at_the_vendor() {
    let server = Server::start().await;
    assert_eq!(give_back(&server, "/developer").await, Ok(Withdrawn::Done));
    let asked = server.asked.lock().unwrap()[0].clone();
    assert!(asked.starts_with("DELETE /developer/v2/user/access "), "{asked}");
    assert!(asked.to_lowercase().contains("bearer canary-access-0"), "{asked}");
    assert_eq!(give_back(&server, "/stale").await, Ok(Withdrawn::Gone), "nobody takes its tokens");
    for way in ["/down", "/hang", "/elsewhere", "/limited"] {
        assert!(give_back(&server, way).await.is_err(), "{way}: it may be tried again");
    }
}

// ── subscriptions ──────────────────────────────────────────────────────────────────────────────

const LIST: &str = "v2/webhook/subscription";

/// Subscriptions of which each person has their own; the secret stands in the path.
fn own(server: &Server) -> Kept {
    let desk = desk("withings", server, "", "/wrapped");
    let subscriptions = desk.consent.own_subscriptions().expect("Withings has them");
    let callback = format!("{PUBLIC}/webhooks/withings/not-a-secret-path");
    Kept { desk, subscriptions, callback, token: SecretString::default(), own: true }
}

fn keeper(
    vendor: &'static str,
    client: Client,
    access: &str,
) -> Keeper<Asked, Rows, Keyring<Safe>> {
    let safe = Safe::with(access, Some("canary-refresh-0"), None);
    let clients = [(vendor.to_owned(), client)].into();
    Keeper {
        consents: Asked::default(),
        tokens: Keyring::new(safe, fetcher(), clients, Metrics::of(&[vendor]), 1),
        queue: Rows::default(),
        fetcher: fetcher(),
        every: Duration::from_secs(60),
        speed: 1,
        metrics: Metrics::of(&[vendor]),
    }
}

async fn look(server: &Server, there: &str) -> Result<Looked> {
    server.documents.lock().unwrap().insert(LIST.to_owned(), there.to_owned());
    let desk = desk("oura", server, "", "/token");
    let subscriptions = desk.consent.subscriptions().expect("Oura has them");
    let callback = format!("{PUBLIC}/webhooks/oura");
    let token: SecretString = "canary-token".into();
    let keeper = keeper("oura", desk.client.clone(), "canary-access-0");
    keeper.look(&Kept { desk, subscriptions, callback, token, own: false }).await
}

#[tokio::test]
async fn subscriptions_are_made_renewed_and_ended() {
    let server = Server::start().await;
    let made = look(&server, "[]").await.expect("an answer");
    assert_eq!(made, Looked { made: 48, ..Looked::default() });
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 49);
    for request in &asked {
        let request = request.to_lowercase();
        assert!(request.contains("x-client-id: our app\r\n"), "{request}");
        assert!(!request.contains("authorization"), "no person's token");
    }
    assert!(asked[1].starts_with("POST /v2/webhook/subscription "), "{}", asked[1]);
    assert!(asked[1].contains("https://bridge.example.com/webhooks/oura"), "{}", asked[1]);
    let one = |id: &str, record: &str, end: &str| {
        format!(
            r#"{{"id":"{id}","callback_url":"{PUBLIC}/webhooks/oura","event_type":"create",
                "data_type":"{record}","expiration_time":"{end}"}}"#
        )
    };
    let soon = one("soon", "sleep", "2026-01-01T00:00:00+00:00");
    let unread = one("unread", "meal", "2126-01-01T00:00:00+00:00");
    let there = look(&server, &format!("[{soon},{unread}]")).await.expect("an answer");
    assert_eq!(there, Looked { made: 47, renewed: 1, ended: 1 });
    let asked = server.asked.lock().unwrap().join("\n");
    assert!(asked.contains("PUT /v2/webhook/subscription/renew/soon "), "{asked}");
    assert!(asked.contains("DELETE /v2/webhook/subscription/unread "), "{asked}");
}

#[tokio::test]
async fn a_list_that_is_none_changes_nothing() {
    let server = Server::start().await;
    for there in ["{}", "<html>", r#"[{"id":"a"}]"#] {
        assert!(look(&server, there).await.is_err(), "{there}");
    }
    assert_eq!(server.asked.lock().unwrap().len(), 3, "asked, and nothing done");
}

// ── subscriptions of each person's own ─────────────────────────────────────────────────────────

const NOTIFY: &str = r#"{"status":0,"body":{"profiles":[]}}"#;

fn answers(server: &Server, body: &str) {
    server.documents.lock().unwrap().insert("notify".to_owned(), body.to_owned());
}

/// The answer is wrapped and says whose it is, and the person's own subscriptions are made at once.
#[tokio::test]
async fn a_person_s_own_subscriptions_are_made_when_they_connect() {
    let world = World::new().await;
    answers(&world.server, NOTIFY);
    let asked = world.follow("withings").await;
    assert!(asked.location.contains("scope=user.info%2Cuser.metrics"), "{}", asked.location);
    let done = world.get(&BACK.replace("whoop", "withings"), asked.kept()).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let connection = ConnectionId::derive("withings", "363", &user());
    let held = format!("withings 363 is user-1 by {connection}");
    assert_eq!(world.told().last(), Some(&held));
    let asked = world.server.asked.lock().unwrap().clone();
    let code = "\r\n\r\naction=requesttoken&grant_type=authorization_code&code=canary-code-1&";
    assert!(asked[0].contains(code), "the code is exchanged before anything else: {}", asked[0]);
    assert!(asked[1].ends_with("action=list"), "{}", asked[1]);
    let made: Vec<&String> =
        asked.iter().filter(|it| it.contains("action=subscribe&callbackurl=")).collect();
    assert_eq!(made.len(), 7);
    assert!(made[0].ends_with("%2Fwebhooks%2Fwithings%2Fnot-a-secret-path&appli=1"), "{}", made[0]);
    assert!(made[0].to_lowercase().contains("authorization: bearer canary-access-1\r\n"));
    let world = World::new().await;
    answers(&world.server, r#"{"status":2555,"body":{}}"#);
    let asked = world.follow("withings").await;
    let done = world.get(&BACK.replace("whoop", "withings"), asked.kept()).await;
    assert_eq!(done.status, 200, "who connected is connected; the next look makes them");
}

#[tokio::test]
async fn a_person_s_own_subscriptions_are_looked_at_with_their_token() {
    let server = Server::start().await;
    let kept = own(&server);
    let keeper = keeper("withings", kept.desk.client.clone(), "canary-access-0");
    answers(&server, NOTIFY);
    assert_eq!(keeper.look(&kept).await, Ok(Looked { made: 7, ..Looked::default() }));
    // One that died is made again, and one that nobody reads is ended.
    let one = |appli: &str| format!(r#"{{"appli":{appli},"callbackurl":"{}"}}"#, kept.callback);
    let there = ["1", "2", "4", "16", "46", "54", "50"].map(one).join(",");
    answers(&server, &format!(r#"{{"status":0,"body":{{"profiles":[{there}]}}}}"#));
    assert_eq!(keeper.look(&kept).await, Ok(Looked { made: 1, renewed: 0, ended: 1 }));
    let asked = server.asked.lock().unwrap().join("\n");
    assert!(asked.contains("appli=44") && asked.contains("action=revoke"), "{asked}");
    // A token that is not taken is renewed, once; a refusal is an error, whatever its status is.
    answers(&server, r#"{"status":401,"body":{}}"#);
    let refused = keeper.look(&kept).await.expect_err("still refused");
    assert_eq!((refused.code.as_str(), server.count("wrapped")), ("401", 1));
    answers(&server, "<html>");
    assert!(keeper.look(&kept).await.is_err());
    // What was announced while one was dead is asked for, and a look that failed has seen none alive.
    let anew = |made, all| format!("withings: {made} made anew, {all} there");
    let told = [anew(1, "all"), anew(1, "all"), anew(0, "not all"), anew(0, "not all")];
    assert_eq!(*keeper.consents.story.lock().unwrap(), told);
}

/// Withings wants it signed over a nonce of its own.
#[tokio::test]
async fn a_consent_is_given_back_by_requests_that_we_sign() {
    let server = Server::start().await;
    for (path, body) in [
        ("v2/signature", r#"{"status":0,"body":{"nonce":"nonce-1"}}"#),
        ("v2/oauth2", r#"{"status":0,"body":{}}"#),
    ] {
        server.documents.lock().unwrap().insert(path.to_owned(), body.to_owned());
    }
    let desk = desk("withings", &server, "", "/wrapped");
    let keyring = keeper("withings", desk.client.clone(), "canary-access-0").tokens;
    let given = withdraw(&fetcher(), &Rows::default(), &keyring, &desk, (ONE, "363"), 1).await;
    assert_eq!(given, Ok(Withdrawn::Done));
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked[1].contains("action=revoke&client_id=our+app&nonce=nonce-1&signature="));
    assert!(asked.iter().all(|it| !it.contains("canary")), "neither a token nor the secret");
    let refusal = r#"{"status":2554,"body":{}}"#.to_owned();
    server.documents.lock().unwrap().insert("v2/oauth2".to_owned(), refusal);
    let given = withdraw(&fetcher(), &Rows::default(), &keyring, &desk, (ONE, "363"), 1).await;
    assert!(given.is_err(), "it may be tried again");
}
