//! Real devices: memory moves, programs are built once, limits hold, failures are told.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use opencl::{
    Argument, DeviceChoice, DeviceKind, Error, Kernel, Library, Memory, Pinned, Program, Queue,
    choose,
};

const SOURCE: &str = "
kernel void scaled(global const float *x, global float *y, float by, uint count) {
    uint at = get_global_id(0);
    if (at < count) y[at] = x[at] * by;
}
kernel void summed(global const float *x, global float *y, local float *room) {
    uint at = get_local_id(0);
    room[at] = x[get_global_id(0)];
    barrier(CLK_LOCAL_MEM_FENCE);
    if (at == 0) {
        float sum = 0.0f;
        for (uint i = 0; i < get_local_size(0); i++) sum += room[i];
        y[get_group_id(0)] = sum;
    }
}
";

/// A queue on every device that there is to test with.
fn queues() -> Vec<Queue> {
    let open = |(variable, path): (&str, std::path::PathBuf)| {
        let library =
            Library::open(Some(&path)).unwrap_or_else(|absent| panic!("{variable}: {absent}"));
        let devices = choose(DeviceChoice::Cpu, library.devices().unwrap()).unwrap();
        assert_eq!(devices[0].kind, DeviceKind::Cpu);
        Queue::open(&devices[0]).unwrap()
    };
    fixture::device::opencl().into_iter().map(open).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn what_is_written_comes_back_scaled() {
    for queue in queues() {
        let program = Program::build(&queue, SOURCE, "-cl-std=CL1.2", None).unwrap();
        let mut scaled = Kernel::new(&program, "scaled").unwrap();
        let mut x = queue.buffer(400, Memory::Device).unwrap();
        let y = queue.buffer(400, Memory::Device).unwrap();
        let numbers: Vec<f32> = (0..100_u8).map(f32::from).collect();
        let fill = |to: &mut [u8]| -> Result<(), Error> {
            to.copy_from_slice(&bytes(&numbers));
            Ok(())
        };
        queue.fill(&mut x, fill).unwrap();
        queue.write(&y, 0, &bytes(&[7.0; 100])).unwrap();
        let arguments =
            [Argument::Buffer(&x), Argument::Buffer(&y), Argument::F32(0.5), Argument::U32(90)];
        let before = queue.launches();
        scaled.launch(&arguments, [128, 1, 1], [64, 1, 1]).unwrap();
        scaled.launch(&arguments, [0, 1, 1], [64, 1, 1]).unwrap();
        assert_eq!(queue.launches(), before + 1, "nothing to do is no launch");
        queue.copy((&y, 0), (&y, 200), 40).unwrap();
        let mut back = [0; 400];
        queue.read(&y, 0, &mut back).unwrap();
        let mut expected: Vec<f32> = numbers.iter().map(|number| number * 0.5).collect();
        expected[90..].fill(7.0);
        expected.copy_within(0..10, 50);
        assert_eq!(floats(&back), expected);
    }
}

#[test]
fn pinned_memory_may_be_written_again_while_a_copy_of_it_is_under_way() {
    for queue in queues() {
        let mut pinned = Pinned::new(&queue, 4 << 20).unwrap();
        let buffers: Vec<_> =
            (0..3).map(|_| queue.buffer(4 << 20, Memory::Device).unwrap()).collect();
        for (mark, buffer) in (1_u8..).zip(&buffers) {
            pinned.bytes_mut().unwrap().fill(mark);
            pinned.send(buffer, 4 << 20).unwrap();
        }
        for (mark, buffer) in (1_u8..).zip(&buffers) {
            let received = pinned.receive(buffer, 4 << 20).unwrap();
            assert!(received.iter().all(|&byte| byte == mark));
        }
    }
}

#[test]
fn local_memory_is_counted_and_limits_are_an_arc_s_whatever_the_device_allows() {
    for queue in queues() {
        let program = Program::build(&queue, SOURCE, "-cl-std=CL1.2", None).unwrap();
        let mut summed = Kernel::new(&program, "summed").unwrap();
        let x = queue.buffer(4 * 2048, Memory::Device).unwrap();
        queue.write(&x, 0, &bytes(&[1.0; 2048])).unwrap();
        let y = queue.buffer(8, Memory::Device).unwrap();
        let arguments =
            |bytes| [Argument::Buffer(&x), Argument::Buffer(&y), Argument::Local(bytes)];
        summed.launch(&arguments(4096), [2048, 1, 1], [1024, 1, 1]).unwrap();
        let mut back = [0; 8];
        queue.read(&y, 0, &mut back).unwrap();
        assert_eq!(floats(&back), [1024.0; 2]);
        let limit = |result: Result<(), Error>| {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Limit { .. }), "{error}");
        };
        limit(summed.launch(&arguments(8192), [2048, 1, 1], [2048, 1, 1]));
        limit(summed.launch(&arguments((64 << 10) + 1), [64, 1, 1], [64, 1, 1]));
        limit(queue.buffer(4 << 30, Memory::Device).map(drop));
        assert_eq!(queue.launches(), 1, "what was refused is no launch");
    }
}

#[test]
fn a_program_is_compiled_once_and_a_damaged_entry_is_a_miss() {
    for queue in queues() {
        let folder = tempfile::tempdir().unwrap();
        let build = |options| Program::build(&queue, SOURCE, options, Some(folder.path())).unwrap();
        assert!(!build("-cl-std=CL1.2").cached());
        assert!(build("-cl-std=CL1.2").cached());
        assert!(!build("-cl-std=CL1.2 -DOTHER").cached());
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let mut damaged = std::fs::read(&path).unwrap();
            *damaged.last_mut().unwrap() ^= 1;
            std::fs::write(&path, damaged).unwrap();
        }
        let again = build("-cl-std=CL1.2");
        assert!(!again.cached());
        Kernel::new(&again, "scaled").unwrap();
    }
}

#[test]
fn what_is_wrong_with_a_program_is_said() {
    for queue in queues() {
        let refused = Program::build(&queue, "kernel void f() { nonsense }", "", None).unwrap_err();
        assert!(matches!(&refused, Error::Build { log } if log.contains("nonsense")), "{refused}");
        let program = Program::build(&queue, SOURCE, "", None).unwrap();
        assert!(Kernel::new(&program, "absent").is_err());
    }
}
