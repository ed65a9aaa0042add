//! `bar.red`: what every thread learns of everybody's predicate.

use crate::lanes::{awkward, run};
use gpusim::simulator::{Arguments, Simulator};

/// Each thread has a vote, `in[t]`. It learns, in `out[4t..]`: how many of all votes are yes; whether all are; whether any vote is no;
/// and how many are yes of those in its half, which meets at a barrier of its own (a block of 128 threads has halves).
const PTX: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry vote(.param .u64 out, .param .u64 in, .param .u32 halves) {
    .reg .b64 %out, %in, %off; .reg .b32 %t, %v, %yes, %all, %no, %half, %halves; .reg .pred %p, %q, %r, %low, %split;
    ld.param.u64 %out, [out]; ld.param.u64 %in, [in]; ld.param.u32 %halves, [halves];
    mov.u32 %t, %tid.x;
    mul.wide.u32 %off, %t, 4; add.u64 %in, %in, %off; shl.b64 %off, %off, 2; add.u64 %out, %out, %off;
    ld.global.u32 %v, [%in]; setp.ne.u32 %p, %v, 0;
    bar.red.popc.u32 %yes, 0, %p;
    bar.red.and.pred %q, 0, %p;
    barrier.cta.red.or.aligned.pred %r, 0, !%p;
    selp.u32 %all, 1, 0, %q; selp.u32 %no, 1, 0, %r; mov.u32 %half, 0;
    setp.eq.u32 %split, %halves, 0;
    @%split bra store;
    setp.lt.u32 %low, %t, 64;
    @!%low bra high;
    bar.red.popc.u32 %half, 1, 64, %p;
    bra store;
high:
    bar.red.popc.u32 %half, 2, 64, !%p;
store:
    st.global.v4.u32 [%out], {%yes, %all, %no, %half};
    ret;
}

.visible .entry leavers(.param .u64 out) {
    .reg .b64 %out, %off; .reg .b32 %t, %yes; .reg .pred %p, %all;
    ld.param.u64 %out, [out];
    mov.u32 %t, %tid.x; mul.wide.u32 %off, %t, 4; add.u64 %out, %out, %off;
    and.b32 %yes, %t, 3; setp.eq.u32 %p, %yes, 0;
    @%p ret;
    setp.ne.u32 %p, %t, 5;
    bar.red.popc.u32 %yes, 0, %p;
    bar.red.and.pred %all, 0, !%p;
    @%all add.u32 %yes, %yes, 1000;
    st.global.u32 [%out], %yes;
    ret;
}
";

fn vote(votes: &[u32]) {
    let threads = votes.len();
    let mut gpu = Simulator::new(PTX).unwrap();
    let input = gpu.upload(&votes.iter().flat_map(|vote| vote.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let output = gpu.allocate(16 * threads).unwrap();
    let arguments = Arguments::new().pointer(output).pointer(input).int((threads == 128).into());
    gpu.launch("vote", [1, 1, 1], [threads as u32, 1, 1], 0, &arguments).unwrap();
    let found = gpu.read(output, 16 * threads);
    let found: Vec<u32> = found.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    let yes = |votes: &[u32]| votes.iter().filter(|&&vote| vote != 0).count() as u32;
    for (thread, found) in found.chunks_exact(4).enumerate() {
        let half = match (threads, thread) {
            (128, 0..64) => yes(&votes[..64]),
            (128, _) => 64 - yes(&votes[64..]),
            _ => 0,
        };
        let (all, any_no) = (!votes.contains(&0), votes.contains(&0));
        assert_eq!(found, [yes(votes), all.into(), any_no.into(), half], "thread {thread} of {votes:?}");
    }
}

#[test]
fn votes_are_counted_over_the_whole_block() {
    // The last warp of 100 threads has four.
    for threads in [1, 32, 33, 100, 128] {
        let block = |vote: &dyn Fn(usize) -> bool| vote_of(threads, vote);
        block(&|_| false);
        block(&|_| true);
        block(&|thread| thread == 0);
        block(&|thread| thread + 1 == threads);
        block(&|thread| thread + 1 != threads);
        block(&|thread| thread != 0);
        block(&|thread| thread / 32 == 1);
        block(&|thread| thread % 7 == 3);
    }
}

fn vote_of(threads: usize, vote_of: &dyn Fn(usize) -> bool) {
    vote(&(0..threads).map(|thread| 7 * u32::from(vote_of(thread))).collect::<Vec<_>>());
}

/// A thread that has returned has no vote, nor is it waited for.
#[test]
fn who_has_left_is_not_counted() {
    let mut gpu = Simulator::new(PTX).unwrap();
    let output = gpu.upload(&[0xee; 4 * 64]).unwrap();
    gpu.launch("leavers", [1, 1, 1], [64, 1, 1], 0, &Arguments::new().pointer(output)).unwrap();
    let found = gpu.read(output, 4 * 64);
    for (thread, found) in found.chunks_exact(4).enumerate() {
        // Of 64 threads 16 have left, and one of the others says no.
        let expected = if thread % 4 == 0 { 0xeeee_eeee } else { 47 };
        assert_eq!(u32::from_le_bytes(found.try_into().unwrap()), expected, "thread {thread}");
    }
}

#[test]
fn votes_of_a_warp_are_its_own_and_may_be_negated() {
    let (a, b, c) = (awkward(1), awkward(2), awkward(3));
    let below = |lane: usize| (a[lane] as u32) < b[lane] as u32;
    let questions: [(&str, &dyn Fn(usize) -> bool); 2] =
        [("lt.u32 %p, %a, %b", &below), ("eq.u32 %p, %a, %a", &|_| true)];
    for (question, answer) in questions {
        for (mode, negated) in
            ["ballot", "all", "any", "uni"].into_iter().flat_map(|mode| [(mode, false), (mode, true)])
        {
            let from = if negated { "!%p" } else { "%p" };
            let vote = match mode {
                "ballot" => format!("vote.sync.ballot.b32 %d, {from}, 0xffffffff;"),
                _ => format!("vote.sync.{mode}.pred %q, {from}, 0xffffffff; selp.u32 %d, 1, 0, %q;"),
            };
            let found = run(&format!("setp.{question}; {vote}"), &a, &b, &c).unwrap();
            for (lane, found) in found.into_iter().enumerate() {
                let warp = lane / 32 * 32;
                let ballot = (0..32).map(|i| u32::from(answer(warp + i) != negated) << i).sum::<u32>();
                let expected = match mode {
                    "ballot" => ballot,
                    "all" => u32::from(ballot == u32::MAX),
                    "any" => u32::from(ballot != 0),
                    _ => u32::from(ballot == 0 || ballot == u32::MAX),
                };
                assert_eq!(found, u64::from(expected), "{question}: {vote} on lane {lane}");
            }
        }
    }
}
