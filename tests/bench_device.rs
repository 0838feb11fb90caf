//! `arcmesh bench device` on the OpenCL devices that need no GPU.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::Output;

use serde_json::Value;
use worker::backend::opencl::LAUNCHES_PER_LAYER;

fn bench(words: &[&str]) -> Output {
    let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
    let words = [&["bench", "device", "--device", "cpu"], words].concat();
    command.args(words).output().unwrap()
}

#[test]
fn every_operation_stands_beside_its_limit() {
    // One device is enough: which it is makes no difference here, and none of them is fast.
    for (_, library) in fixture::device::opencl().into_iter().take(1) {
        let output = bench(&["--opencl-library", library.to_str().unwrap(), "--json", "-"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let limit = json["device"]["read_bytes_per_second"].as_f64().unwrap();
        let operations = json["operations"].as_array().unwrap();
        assert_eq!(operations.len(), 16, "seven operations and a layer, for one row and for 32");
        for it in operations {
            let figure = |name: &str| it[name].as_f64().unwrap();
            assert!(figure("seconds") > 0.0, "{it}");
            let read = figure("bytes") / limit;
            assert!((figure("read_seconds") / read - 1.0).abs() < 1e-6, "{it}");
            let ratio = read / figure("seconds");
            assert!((figure("ratio") / ratio - 1.0).abs() < 1e-6, "{it}");
            let name = it["name"].as_str().unwrap();
            // A product quantises its rows once; it was timed afterwards.
            let launches = match name {
                "a layer" => LAUNCHES_PER_LAYER,
                "attention" => 2,
                _ => 1,
            };
            assert_eq!(it["launches"], launches, "{name}");
            assert!(said.contains(name), "{name} is not told to people");
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_one_line() {
    let output = bench(&["--opencl-library", "/no/such/library.so"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/no/such/library.so") && said.lines().count() == 1, "{said}");
}
