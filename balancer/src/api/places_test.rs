use super::*;

const A: Client = Client::Process(0, 1);
const B: Client = Client::Process(0, 2);
const C: Client = Client::Process(0, 3);

fn is_evicted(place: &Place) -> bool {
    place.0.doing() == Doing::Evicted
}

#[test]
fn the_oldest_connection_of_a_client_that_waits_makes_room_for_its_next() {
    let places = Places::new(8);
    let held: Vec<Place> = (0..4).map(|_| places.take(A).unwrap()).collect();
    let other = places.take(B).unwrap();
    held[0].0.begin();
    let fifth = places.take(A).unwrap();
    assert!(is_evicted(&held[1]), "the first one works, so the second one goes");
    assert!(!held.iter().skip(2).chain([&held[0], &fifth, &other]).any(is_evicted));
    for place in held.iter().skip(2).chain([&fifth]) {
        place.0.begin();
    }
    assert!(places.take(A).is_none(), "all of them work");
    assert!(!is_evicted(&other));
    fifth.0.end();
    assert!(places.take(A).is_some());
    assert!(is_evicted(&fifth));
}

#[test]
fn a_full_socket_has_room_for_a_client_that_holds_less_than_others() {
    let places = Places::new(8);
    let of_a: Vec<Place> = (0..4).map(|_| places.take(A).unwrap()).collect();
    let of_b: Vec<Place> = (0..3).map(|_| places.take(B).unwrap()).collect();
    let first = places.take(C).unwrap();
    let second = places.take(C).unwrap();
    assert!(is_evicted(&of_a[0]) && !is_evicted(&first));
    for place in of_a.iter().chain(&of_b).chain([&first, &second]) {
        place.0.begin();
    }
    let third = places.take(Client::Process(0, 4)).unwrap();
    assert!(of_a.iter().chain(&of_b).filter(|place| is_evicted(place)).count() == 2);
    drop((third, of_a, of_b, first, second));
    assert!(places.held.acquire().connections.is_empty());
}

#[test]
fn a_thousand_clients_with_one_connection_each_shut_out_no_other() {
    let places = Places::new(16);
    let mut held = Vec::new();
    for pid in 0..1000 {
        held.push(places.take(Client::Process(1000, pid)).expect("the oldest one makes room"));
    }
    assert_eq!(held.iter().filter(|place| !is_evicted(place)).count(), 16);
    assert!(!held.iter().rev().take(16).any(is_evicted), "the newest ones stay");
    for place in &held {
        place.0.begin();
    }
    assert!(places.take(Client::Process(0, 5000)).is_none(), "each works, and none holds more than one");
}

#[test]
fn streams_are_bounded_for_one_client_and_for_all() {
    let places = Places::new(16);
    assert_eq!(places.streams(), (8, 4));
    let mut held = Vec::new();
    for pid in 0..3 {
        for _ in 0..5 {
            let place = places.take(Client::Process(0, pid)).unwrap();
            place.0.begin();
            let stream = place.0.stream();
            held.push((place, stream));
        }
    }
    let streams = |held: &[(Place, Option<Streaming>)]| held.iter().filter(|one| one.1.is_some()).count();
    assert_eq!((streams(&held[..5]), streams(&held[5..10]), streams(&held)), (4, 4, 8));
    held[0].1 = None;
    assert_eq!(held[0].0.0.doing(), Doing::Idle);
    assert!(held[10].0.0.stream().is_some());
}

#[test]
fn a_network_of_ipv6_is_one_client() {
    let client = |text: &str| Client::host(text.parse().unwrap());
    assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:2"));
    assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_10_s_into_a_header_and_120_s_into_a_pause() {
    let places = Places::new(4);
    let place = places.take(A).unwrap();
    let began = Instant::now();
    place.0.ended().await;
    assert_eq!(began.elapsed().as_secs(), 10);

    let place = places.take(A).unwrap();
    place.0.begin();
    place.0.end();
    let began = Instant::now();
    place.0.ended().await;
    assert_eq!(began.elapsed().as_secs(), 120);

    let place = places.take(A).unwrap();
    place.0.begin();
    place.0.end();
    let began = Instant::now();
    let later = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        place.0.received();
        tokio::time::sleep(Duration::from_secs(5)).await;
        // More bytes of the same header move no deadline.
        place.0.received();
    };
    tokio::join!(place.0.ended(), later);
    assert_eq!(began.elapsed().as_secs(), 110);
}
