//! A short run of what the fuzz targets run for long, from seeds that proptest prints and keeps.

use super::*;
use proptest::prelude::*;

/// Records that are likelier to make sense than any 16 bytes: few queues, short lists, chains that go on.
fn records(count: usize) -> impl Strategy<Value = Vec<u8>> {
    let record = (any::<u8>(), 0..5u8, 0..16u8, 0..4u8, 0..16u8, any::<[u8; 11]>()).prop_map(
        |(op, queue, at, flags, next, rest)| {
            let mut record = vec![op, queue, at, flags, next];
            record.extend(rest);
            record
        },
    );
    prop::collection::vec(record, 1..count).prop_map(|records| records.concat())
}

#[test]
fn the_steps_bring_a_device_up() {
    let data = brought_up();
    let mem = crate::testing::memory(0x10_000);
    let balloon = Balloon::new(
        16,
        Box::new(FakeRam::new(16)),
        BalloonOptions { deflate_on_oom: true, free_page_reporting: true, stats: true },
    );
    let transport = Mutex::new(VirtioMmio::new(mem, balloon, Arc::new(RecordingIrq::default())));
    for record in data.as_chunks::<8>().0 {
        if record[0] == 0 {
            transport.write(u64::from(record[1]) * 4, &record[4..]);
        }
    }
    let transport = transport.lock().unwrap();
    assert!(transport.is_live());
    assert_eq!(transport.counters().bad_queue_setups + transport.counters().bad_accesses, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_for_a_balloon(data in records(120)) {
        balloon(&data);
    }

    #[test]
    fn any_bytes_for_a_disk(read_only in any::<u8>(), data in records(120)) {
        block(&[vec![read_only], data].concat());
    }

    #[test]
    fn any_bytes_for_a_console(data in records(120)) {
        console(&data);
    }

    #[test]
    fn any_bytes_for_a_source_of_entropy(data in records(120)) {
        entropy(&data);
    }

    #[test]
    fn any_bytes_for_an_image(data in records(120)) {
        pmem(&data);
    }

    #[test]
    fn any_bytes_for_the_registers(data in prop::collection::vec(any::<u8>(), 0..1000)) {
        registers(&data);
    }
}
