//! Where divergent paths meet again: immediate post-dominators of a function's branches.

/// Where control goes after an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// On to the following one.
    Fall,
    /// To the target only.
    Jump(Vec<usize>),
    /// To the targets or on.
    Fork(Vec<usize>),
    /// Out of the kernel: the thread ends here.
    Leave,
}

/// For each instruction that may part a warp, the index where all its paths meet; none where they don't before the end.
///
/// Threads that leave early don't delay the others (a barrier counts only the living), so of all the ends that an
/// instruction can reach only the last in the text counts as one, and a guarded exit falls through.
pub(super) fn joins(next: &[Next]) -> Vec<Option<usize>> {
    let n = next.len();
    let forward: Vec<Vec<usize>> = (0..n)
        .map(|i| {
            let fall = (i + 1 < n).then_some(i + 1);
            match &next[i] {
                Next::Fall => fall.into_iter().collect(),
                Next::Jump(targets) => targets.clone(),
                Next::Fork(targets) => targets.iter().copied().chain(fall).collect(),
                Next::Leave => vec![],
            }
        })
        .collect();
    let mut backward = vec![Vec::new(); n];
    for (i, targets) in forward.iter().enumerate() {
        for &target in targets {
            backward[target].push(i);
        }
    }
    let reached = reached(&forward);
    let mut joins = vec![None; n];
    let mut settled = vec![false; n];
    for end in (0..n).rev().filter(|&i| reached[i] && forward[i].is_empty()) {
        if !settled[end] {
            join_before(end, &forward, &backward, &mut settled, &mut joins);
        }
    }
    joins
}

/// Settles the joins of whatever can reach `end` and isn't settled: immediate post-dominators.
///
/// What is left reaches no end that was settled before, and neither do its successors, so those are left as well. Solved as
/// dominators of the reversed graph (Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm", 2001) with
/// instructions as nodes.
fn join_before(
    end: usize,
    forward: &[Vec<usize>],
    backward: &[Vec<usize>],
    settled: &mut [bool],
    joins: &mut [Option<usize>],
) {
    // Reverse post-order from the end, over reversed edges.
    let mut order = Vec::new();
    let mut stack = vec![(end, 0)];
    settled[end] = true;
    while let Some((node, child)) = stack.pop() {
        if let Some(&before) = backward[node].get(child) {
            stack.push((node, child + 1));
            if !settled[before] {
                settled[before] = true;
                stack.push((before, 0));
            }
        } else {
            order.push(node);
        }
    }
    order.reverse();
    let mut rank = vec![usize::MAX; forward.len()];
    for (position, &node) in order.iter().enumerate() {
        rank[node] = position;
    }
    let mut dominator = vec![usize::MAX; forward.len()];
    dominator[end] = end;
    let mut changed = true;
    while changed {
        changed = false;
        for &node in &order[1..] {
            let mut meet = usize::MAX;
            for &after in &forward[node] {
                if dominator[after] == usize::MAX {
                    continue;
                }
                meet = if meet == usize::MAX { after } else { intersect(&dominator, &rank, meet, after) };
            }
            if meet != dominator[node] {
                dominator[node] = meet;
                changed = true;
            }
        }
    }
    for &node in &order[1..] {
        joins[node] = Some(dominator[node]);
    }
}

/// Which instructions the first one can reach.
fn reached(forward: &[Vec<usize>]) -> Vec<bool> {
    let mut reached = vec![false; forward.len()];
    let mut open = vec![0];
    while let Some(i) = open.pop() {
        if i < forward.len() && !std::mem::replace(&mut reached[i], true) {
            open.extend(&forward[i]);
        }
    }
    reached
}

fn intersect(dominator: &[usize], rank: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        while rank[a] > rank[b] {
            a = dominator[a];
        }
        while rank[b] > rank[a] {
            b = dominator[b];
        }
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_if_meets_behind_its_branches() {
        // 0: if → 2; 1: goto 3; 2: ; 3: end
        let next = [Next::Fork(vec![2]), Next::Jump(vec![3]), Next::Fall, Next::Leave];
        assert_eq!(joins(&next)[0], Some(3));
    }

    #[test]
    fn a_loop_meets_at_its_exit() {
        let next = [Next::Fall, Next::Fork(vec![0]), Next::Leave];
        assert_eq!(joins(&next)[1], Some(2));
    }

    #[test]
    fn a_path_that_ends_early_delays_nobody() {
        // 0: if → 3; 1: if → 4; 2: end; 3: …; 4: …; 5: end
        let next = [Next::Fork(vec![3]), Next::Fork(vec![4]), Next::Leave, Next::Fall, Next::Fall, Next::Leave];
        assert_eq!(joins(&next)[..2], [Some(4), Some(4)]);
    }

    #[test]
    fn two_bodies_each_with_its_end_have_their_own_joins() {
        // 0: if → 4; 1: if → 3; 2: …; 3: end; 4: if → 6; 5: …; 6: end
        let fork = |target| Next::Fork(vec![target]);
        let next = [fork(4), fork(3), Next::Fall, Next::Leave, fork(6), Next::Fall, Next::Leave];
        assert_eq!([0, 1, 4].map(|i| joins(&next)[i]), [Some(4), Some(3), Some(6)]);
    }

    #[test]
    fn an_end_that_nobody_reaches_is_none() {
        // 0: if → 2; 1: …; 2: end; 3: end, behind it.
        let next = [Next::Fork(vec![2]), Next::Fall, Next::Leave, Next::Leave];
        assert_eq!(joins(&next)[0], Some(2));
    }

    #[test]
    fn an_endless_loop_has_no_join() {
        let next = [Next::Fork(vec![2]), Next::Leave, Next::Jump(vec![2])];
        assert_eq!(joins(&next)[2], None);
    }
}
