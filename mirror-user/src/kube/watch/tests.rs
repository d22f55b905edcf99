//! The watch against a scripted server, on a paused clock.

use std::collections::BTreeSet;

use tokio::time::advance;

use self::server::{
    RequestLog, ResponseEnd, ScriptedResponse, bookmark, client, client_of, error, line,
};
use super::*;
use crate::kube::RelistTracker;

mod server;

fn things() -> Resource {
    Resource::new("example.com/v1", "Thing", "things")
}

/// A running watch, and what its events make known.
struct Reader {
    events: mpsc::Receiver<Event>,
    health: Health,
    requests: RequestLog,
    known: BTreeSet<ObjectName>,
    relist: RelistTracker,
    objects: Vec<Box<RawValue>>,
    missing: Vec<Duration>,
    completions: usize,
}

impl Reader {
    fn start((client, requests): (Client, RequestLog)) -> Self {
        let (watch, events) = Watch::new(client, things());
        let health = watch.health();
        tokio::spawn(watch.run());
        let (known, relist, objects, missing) = Default::default();
        Self { events, health, requests, known, relist, objects, missing, completions: 0 }
    }

    /// Takes events until nothing more comes for an hour, or `enough` of lists are complete.
    async fn read(&mut self, enough: usize) {
        while self.completions < enough && self.next(Duration::from_secs(3600)).await {}
    }

    async fn next(&mut self, within: Duration) -> bool {
        let Ok(event) = tokio::time::timeout(within, self.events.recv()).await else {
            return false;
        };
        match event.expect("the watch goes on") {
            Event::Started => self.relist.start(self.known.iter()),
            Event::Applied(name, object) => {
                self.relist.present(&name);
                self.known.insert(name);
                self.objects.push(object);
            }
            Event::Deleted(name) => drop(self.known.remove(&name)),
            Event::Complete => {
                self.completions += 1;
                for gone in self.relist.complete() {
                    self.known.remove(&gone);
                }
            }
            Event::Missing(since) => self.missing.push(since),
        }
        true
    }

    fn names(&self) -> Vec<&str> {
        self.known.iter().map(|name| name.name.as_str()).collect()
    }
}

/// A list of a and b, streamed, up to version 10.
fn listed(end: ResponseEnd) -> ScriptedResponse {
    let lines = [line("ADDED", "a", 3), line("ADDED", "b", 7), bookmark(10, true)];
    ScriptedResponse::lines(&lines, end)
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_is_followed_by_its_changes() {
    let lines = [
        line("ADDED", "a", 3),
        line("ADDED", "b", 7),
        bookmark(10, true),
        line("MODIFIED", "a", 11),
        line("DELETED", "b", 12),
        line("ADDED", "c", 13),
        bookmark(14, false),
    ];
    let script = [
        ScriptedResponse::lines(&lines, ResponseEnd::Broken),
        ScriptedResponse::lines(&[], ResponseEnd::Never),
    ];
    let mut reader = Reader::start(client(script));
    assert_eq!((reader.health.is_complete(), reader.health.age()), (false, None));
    reader.read(2).await;
    assert_eq!(reader.names(), ["a", "c"]);
    assert_eq!(reader.completions, 1, "what was resumed is no new list");
    assert_eq!(reader.requests.kinds()[..2], ["stream", "watch 14"]);
    assert!(reader.objects[0].get().contains(r#""endpoints":null"#), "as it came");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_to_stream_lists_gets_requests_for_pages() {
    for code in [400, 422] {
        let script = [
            ScriptedResponse::status(code),
            ScriptedResponse::page(&["a"], 5, Some("more")),
            ScriptedResponse::page(&[], 5, Some("yet more")),
            ScriptedResponse::page(&["b"], 5, None),
            ScriptedResponse::lines(&[line("ADDED", "c", 6)], ResponseEnd::Broken),
            ScriptedResponse::status(410),
            ScriptedResponse::page(&["b"], 9, None),
            ScriptedResponse::lines(&[], ResponseEnd::Never),
        ];
        let mut reader = Reader::start(client(script));
        reader.read(1).await;
        assert_eq!(reader.names(), ["a", "b"]);
        reader.read(2).await;
        assert_eq!(reader.names(), ["b"]);
        let kinds =
            ["stream", "list", "list more", "list yet%20more", "watch 5", "watch 6", "list"];
        assert_eq!(reader.requests.kinds()[..7], kinds);
        let times = reader.requests.all();
        assert_eq!(times[0].0, times[1].0, "a refused stream costs no time");
        assert!(times[6].0 - times[5].0 < Duration::from_secs(2), "410 lists anew within 2 s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_complete() {
    let script = [ScriptedResponse::status(422), ScriptedResponse::page(&[], 5, None)];
    let mut reader = Reader::start(client(script));
    reader.read(1).await;
    assert_eq!((reader.completions, reader.names()), (1, vec![]));
    assert!(reader.health.is_complete());
}

#[tokio::test(start_paused = true)]
async fn lists_that_break_off_leave_no_ghost_and_are_not_retried_at_once() {
    const LONGEST: Duration = Duration::from_millis(600);
    const RUNS: u32 = 50;
    let mut waited = Duration::ZERO;
    for _ in 0..RUNS {
        let cut = |name| ScriptedResponse::lines(&[line("ADDED", name, 3)], ResponseEnd::Broken);
        let script = [cut("ghost"), cut("ghost 2"), cut("ghost 3"), listed(ResponseEnd::Never)];
        let mut reader = Reader::start(client(script));
        reader.read(1).await;
        assert_eq!(reader.names(), ["a", "b"]);
        assert_eq!(reader.requests.kinds(), ["stream"; 4]);
        assert_eq!(reader.health.failures(), 3);
        for pair in reader.requests.all().windows(2) {
            let wait = pair[1].0 - pair[0].0;
            // Timers are rounded up to a whole millisecond.
            assert!(wait <= LONGEST + Duration::from_millis(1), "{wait:?}");
            waited += wait;
        }
    }
    // Each wait is drawn from 0 to 600 ms: a mean of 300 ms, of 150 waits with a standard deviation
    // of 14 ms. The bounds are seven of them away.
    let mean = waited / (3 * RUNS);
    assert!((200..=400).contains(&mean.as_millis()), "{mean:?}");
}

#[tokio::test(start_paused = true)]
async fn pages_that_break_off_leave_no_ghost() {
    let script = [
        ScriptedResponse::status(422),
        ScriptedResponse::page(&["ghost"], 5, Some("more")),
        ScriptedResponse::status(500),
        ScriptedResponse::page(&["ghost 2"], 6, Some("more")),
        ScriptedResponse::status(410),
        ScriptedResponse::page(&["a"], 7, None),
        ScriptedResponse::lines(&[], ResponseEnd::Never),
    ];
    let mut reader = Reader::start(client(script));
    reader.read(1).await;
    assert_eq!(reader.names(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_version_lists_again_within_two_seconds() {
    let script = [
        ScriptedResponse::lines(
            &[bookmark(10, true), line("ADDED", "old", 11), error(410)],
            ResponseEnd::Never,
        ),
        listed(ResponseEnd::Never),
    ];
    let mut reader = Reader::start(client(script));
    reader.read(2).await;
    assert_eq!(reader.names(), ["a", "b"]);
    let times = reader.requests.all();
    assert!(times[1].0 - times[0].0 < Duration::from_secs(2));
    assert_eq!(reader.health.lists(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_the_server_does_not_take_is_dropped_but_not_for_a_busy_server() {
    let script = [
        listed(ResponseEnd::Broken),
        ScriptedResponse::status(503),
        ScriptedResponse::status(429),
        ScriptedResponse::status(504),
        listed(ResponseEnd::Never),
    ];
    let mut reader = Reader::start(client(script));
    reader.read(2).await;
    assert_eq!(reader.requests.kinds(), ["stream", "watch 10", "watch 10", "watch 10", "stream"]);
}

#[tokio::test(start_paused = true)]
async fn garbage_neither_stops_the_watch_nor_hides_what_follows() {
    let broken = r#"{"type":"ADDED","object":{"metadata":{"name":"#;
    let scripts: [&[&str]; 6] = [
        &["nonsense\n"],
        &[broken, "\n"],
        &[broken],
        &["{\"type\":\"STRANGE\",\"object\":{}}\n"],
        &["{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{}}}\n"],
        &["\u{0}\u{1}\n"],
    ];
    for parts in scripts {
        let script =
            [ScriptedResponse::bytes(parts, ResponseEnd::Whole), listed(ResponseEnd::Never)];
        let mut reader = Reader::start(client(script));
        reader.read(1).await;
        assert_eq!(reader.names(), ["a", "b"], "after {parts:?}");
        assert_eq!(reader.health.failures(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_none_delays_no_other() {
    let lines = [
        r#"{"type":"ADDED","object":{"metadata":"text"}}"#.to_owned(),
        r#"{"type":"ADDED","object":17}"#.to_owned(),
        r#"{"type":"ADDED","object":{"metadata":{"name":"odd"},"spec":{"rules":7}}}"#.to_owned(),
        line("ADDED", "a", 1),
        bookmark(3, true),
    ];
    let mut reader = Reader::start(client([ScriptedResponse::lines(&lines, ResponseEnd::Never)]));
    reader.read(1).await;
    assert_eq!(reader.names(), ["a", "odd"]);
    assert_eq!(reader.health.failures(), 0);
}

#[tokio::test(start_paused = true)]
async fn lines_may_be_split_anywhere() {
    let text =
        [line("ADDED", "ä", 3), String::new(), bookmark(10, true), String::new()].join("\r\n");
    for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
        let parts = [&text[..at], &text[at..]];
        let mut reader =
            Reader::start(client([ScriptedResponse::bytes(&parts, ResponseEnd::Never)]));
        reader.read(1).await;
        assert_eq!(reader.names(), ["ä"], "split at {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_an_end_of_its_list_is_given_up_for_pages() {
    let script = [
        ScriptedResponse::lines(&[line("ADDED", "ghost", 3)], ResponseEnd::Never),
        ScriptedResponse::page(&["a"], 5, None),
        ScriptedResponse::lines(&[], ResponseEnd::Never),
    ];
    let mut reader = Reader::start(client(script));
    let start = Instant::now();
    reader.read(1).await;
    assert_eq!(reader.names(), ["a"]);
    assert!(start.elapsed() <= Duration::from_secs(16));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_gets_another_request() {
    // A stream that hangs; then a head that never comes, behind the script's end.
    let mut reader = Reader::start(client([listed(ResponseEnd::Never)]));
    reader.read(2).await;
    let kinds = reader.requests.kinds();
    assert!(kinds.len() > 10 && kinds[1..].iter().all(|kind| kind == "watch 10"), "{kinds:?}");
    let times = reader.requests.all();
    let silence = times[1].0 - times[0].0;
    assert!((150..153).contains(&silence.as_secs()), "{silence:?}");
    assert!(reader.health.age().is_some_and(|age| age > Duration::from_secs(1800)));
    assert!(reader.health.trouble().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failing_list_is_retried_ever_more_rarely() {
    let (client, requests) = client_of(|| Some(ScriptedResponse::status(500)));
    let _reader = Reader::start((client, requests.clone()));
    let within = |from: u64, to: u64, start: Instant| {
        let times = requests.all();
        let since = times.iter().map(|(at, _)| (*at - start).as_secs());
        since.filter(|second| (from..to).contains(second)).count()
    };
    let start = Instant::now();
    for _ in 0..36_000 {
        advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    let (minute, last) = (within(0, 60, start), within(3000, 3600, start));
    assert!((10..90).contains(&minute), "{minute} in the first minute");
    assert!((20..70).contains(&last), "{last} in ten minutes: every 15 s or so");
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_at_once_are_failures() {
    let mut first = Some(listed(ResponseEnd::Whole));
    let respond = move || {
        Some(first.take().unwrap_or_else(|| ScriptedResponse::lines(&[], ResponseEnd::Whole)))
    };
    let (client, requests) = client_of(respond);
    let mut reader = Reader::start((client, requests.clone()));
    reader.read(1).await;
    for _ in 0..600 {
        advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    let count = requests.all().len();
    assert!(count < 90, "{count} requests in a minute");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_ten_seconds_is_over_five_seconds_after_the_server_is_ready() {
    for _ in 0..50 {
        let start = Instant::now();
        let mut first = Some(listed(ResponseEnd::Broken));
        let (client, requests) = client_of(move || {
            let down = start.elapsed() < Duration::from_secs(10);
            first.take().or_else(|| {
                Some(if down { ScriptedResponse::status(503) } else { listed(ResponseEnd::Never) })
            })
        });
        let mut reader = Reader::start((client, requests));
        reader.read(1).await;
        while reader.health.age() != Some(Duration::ZERO) || start.elapsed().as_secs() < 10 {
            advance(Duration::from_millis(20)).await;
            tokio::task::yield_now().await;
        }
        let resynced = start.elapsed() - Duration::from_secs(10);
        assert!(resynced < Duration::from_secs(5), "{resynced:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_missing_is_reported_and_a_nudge_looks_again_at_once() {
    let start = Instant::now();
    let (client, requests) = client_of(move || {
        let there = start.elapsed() > Duration::from_secs(60);
        Some(if there { listed(ResponseEnd::Never) } else { ScriptedResponse::status(404) })
    });
    let (watch, events) = Watch::new(client, things());
    let (health, retry_now) = (watch.health(), watch.retry_now());
    tokio::spawn(watch.run());
    let (known, relist, objects, missing) = Default::default();
    let mut reader =
        Reader { events, health, requests, known, relist, objects, missing, completions: 0 };
    while start.elapsed() <= Duration::from_secs(60) {
        reader.next(Duration::from_secs(10)).await;
    }
    assert_eq!(reader.missing[0], Duration::ZERO);
    assert!(reader.missing.iter().any(|since| since.as_secs() >= 30), "{:?}", reader.missing);
    assert!(reader.missing.is_sorted());
    let nudged = Instant::now();
    retry_now.notify_one();
    reader.read(1).await;
    assert_eq!(reader.names(), ["a", "b"]);
    assert!(nudged.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_its_reader() {
    let (client, _) = client([listed(ResponseEnd::Never)]);
    let (watch, events) = Watch::new(client, things());
    let running = tokio::spawn(watch.run());
    tokio::task::yield_now().await;
    drop(events);
    running.await.unwrap();
}
