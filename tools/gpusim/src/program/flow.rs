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
/// Threads that leave early don't delay the others (a barrier counts only the living), so of all the ends only the last
/// in the text counts as one, and a guarded exit falls through.
///
/// Solved as dominators of the reversed graph (Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm", 2001)
/// with instructions as nodes.
pub(super) fn joins(next: &[Next]) -> Vec<Option<usize>> {
    let n = next.len();
    let exit = n;
    let successors = |i: usize| -> Vec<usize> {
        let fall = if i + 1 < n { i + 1 } else { exit };
        match &next[i] {
            Next::Fall => vec![fall],
            Next::Jump(targets) => targets.clone(),
            Next::Fork(targets) => targets.iter().copied().chain([fall]).collect(),
            Next::Leave => vec![],
        }
    };
    let mut forward: Vec<Vec<usize>> = (0..n).map(successors).collect();
    if let Some(last) = last_end(next, &forward) {
        forward[last].push(exit);
    }
    let mut backward = vec![Vec::new(); n + 1];
    for (i, targets) in forward.iter().enumerate() {
        for &target in targets {
            backward[target].push(i);
        }
    }
    // Reverse post-order from the exit, over reversed edges.
    let mut order = Vec::with_capacity(n + 1);
    let mut seen = vec![false; n + 1];
    let mut stack = vec![(exit, 0)];
    seen[exit] = true;
    while let Some((node, child)) = stack.pop() {
        if let Some(&before) = backward[node].get(child) {
            stack.push((node, child + 1));
            if !seen[before] {
                seen[before] = true;
                stack.push((before, 0));
            }
        } else {
            order.push(node);
        }
    }
    order.reverse();
    let mut rank = vec![usize::MAX; n + 1];
    for (position, &node) in order.iter().enumerate() {
        rank[node] = position;
    }
    let mut dominator = vec![usize::MAX; n + 1];
    dominator[exit] = exit;
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
    (0..n).map(|i| Some(dominator[i]).filter(|&d| d < exit)).collect()
}

/// The last end in the text that can be reached.
fn last_end(next: &[Next], forward: &[Vec<usize>]) -> Option<usize> {
    let mut reached = vec![false; next.len()];
    let mut open = vec![0];
    while let Some(i) = open.pop() {
        if i < next.len() && !std::mem::replace(&mut reached[i], true) {
            open.extend(&forward[i]);
        }
    }
    (0..next.len()).rev().find(|&i| reached[i] && next[i] == Next::Leave)
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
