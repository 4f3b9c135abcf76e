//! The order of the steps of one list.
use petgraph::graph::DiGraph;
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet, VecDeque},
};

/// Which steps of a list each step needs.
#[derive(Debug, Default)]
pub(super) struct Order {
    needs: Vec<Vec<usize>>,
    /// Steps that come after all steps above them: a search ends there at once.
    after_all: Vec<bool>,
    visited: RefCell<(u32, Vec<u32>)>,
}

impl Order {
    /// From the explicit needs of each step; `None` is the default: every step above that no other
    /// step above needs.
    pub(super) fn new(explicit: Vec<Option<Vec<usize>>>) -> Self {
        let count = explicit.len();
        let mut needs: Vec<Vec<usize>> = Vec::with_capacity(count);
        let mut after_all = Vec::with_capacity(count);
        let mut needed = vec![false; count];
        let mut front: Vec<usize> = Vec::new();
        for (step, given) in explicit.into_iter().enumerate() {
            let own = match given {
                Some(given) => {
                    let chained = step == 0
                        || (given.contains(&(step - 1)) && after_all.last() == Some(&true));
                    after_all.push(chained);
                    given
                }
                None => {
                    after_all.push(true);
                    front.retain(|above| !needed.get(*above).copied().unwrap_or(false));
                    std::mem::take(&mut front)
                }
            };
            for &other in &own {
                if let Some(needed) = needed.get_mut(other) {
                    *needed = true;
                }
            }
            front.push(step);
            needs.push(own);
        }
        Self {
            needs,
            after_all,
            visited: RefCell::new((0, vec![0; count])),
        }
    }

    /// The steps that a step needs directly.
    pub(super) fn needs(&self, step: usize) -> &[usize] {
        self.needs.get(step).map_or(&[], Vec::as_slice)
    }

    /// Whether `step` needs `other`, directly or through others.
    pub(super) fn reaches(&self, step: usize, other: usize) -> bool {
        let mut visited = self.visited.borrow_mut();
        visited.0 += 1;
        let (stamp, marks) = &mut *visited;
        let mut open = vec![step];
        while let Some(at) = open.pop() {
            if other < at && self.after_all.get(at).copied().unwrap_or(false) {
                return true;
            }
            for &need in self.needs(at) {
                if need == other {
                    return true;
                }
                if let Some(mark) = marks.get_mut(need)
                    && *mark != *stamp
                {
                    *mark = *stamp;
                    open.push(need);
                }
            }
        }
        false
    }

    /// The circles among the steps, each as the steps along it.
    pub(super) fn cycles(&self) -> Vec<Vec<usize>> {
        let forward = |(step, needs): (usize, &Vec<usize>)| needs.iter().any(|need| *need >= step);
        if !self.needs.iter().enumerate().any(forward) {
            return Vec::new();
        }
        let edges =
            self.needs.iter().enumerate().flat_map(|(step, needs)| {
                needs.iter().map(move |need| (index(step), index(*need)))
            });
        let graph: DiGraph<(), ()> = DiGraph::from_edges(edges);
        let mut cycles: Vec<Vec<usize>> = petgraph::algo::tarjan_scc(&graph)
            .into_iter()
            .filter(|group| match group.as_slice() {
                [only] => graph.contains_edge(*only, *only),
                _ => true,
            })
            .map(|group| {
                let group: HashSet<usize> = group.iter().map(|node| node.index()).collect();
                self.walk(&group)
            })
            .collect();
        cycles.sort();
        cycles
    }

    /// A shortest circle through the first step of a strongly connected group.
    fn walk(&self, group: &HashSet<usize>) -> Vec<usize> {
        let start = group.iter().copied().min().unwrap_or(0);
        let mut from: HashMap<usize, usize> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for &need in self.needs(at) {
                if need == start {
                    let mut path = vec![at];
                    let mut last = at;
                    while let Some(before) = from.get(&last).filter(|_| last != start) {
                        last = *before;
                        path.push(last);
                    }
                    path.reverse();
                    return path;
                }
                if group.contains(&need) && !from.contains_key(&need) {
                    from.insert(need, at);
                    queue.push_back(need);
                }
            }
        }
        vec![start]
    }
}

fn index(step: usize) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_everything_above() {
        // a; b, c need a; d is the fan-in of both.
        let order = Order::new(vec![None, Some(vec![0]), Some(vec![0]), None]);
        assert_eq!(order.needs(0), [] as [usize; 0]);
        assert_eq!(order.needs(3), [1, 2]);
        assert!(order.reaches(3, 0) && !order.reaches(2, 1) && order.reaches(2, 0));
        assert!(order.cycles().is_empty());
    }

    #[test]
    fn a_parallel_start_is_joined() {
        let order = Order::new(vec![Some(vec![]), Some(vec![]), None, None]);
        assert_eq!(order.needs(2), [0, 1]);
        assert_eq!(order.needs(3), [2]);
        assert!(!order.reaches(1, 0));
    }

    #[test]
    fn cycles_are_walked() {
        let order = Order::new(vec![Some(vec![2]), Some(vec![0]), Some(vec![1])]);
        assert_eq!(order.cycles(), [vec![0, 2, 1]]);
        let own = Order::new(vec![Some(vec![0])]);
        assert_eq!(own.cycles(), [vec![0]]);
    }

    proptest::proptest! {
        /// The search agrees with a plain transitive closure.
        #[test]
        fn reaches_is_the_closure(raw in proptest::collection::vec(proptest::option::of(proptest::collection::vec(0usize..12, 0..3)), 1..12)) {
            let count = raw.len();
            let explicit: Vec<Option<Vec<usize>>> = raw.into_iter().enumerate().map(|(step, needs)| {
                needs.map(|needs| needs.into_iter().map(|need| need % count).filter(|need| *need != step).collect())
            }).collect();
            let order = Order::new(explicit);
            let mut closure = vec![vec![false; count]; count];
            for (step, row) in closure.iter_mut().enumerate() { for need in order.needs(step) { row[*need] = true; } }
            for k in 0..count { for i in 0..count { for j in 0..count {
                if closure[i][k] && closure[k][j] { closure[i][j] = true; }
            } } }
            let cyclic = (0..count).any(|i| closure[i][i]);
            proptest::prop_assert_eq!(!order.cycles().is_empty(), cyclic);
            // In a circle nothing comes before anything; that is told, and not asked further.
            if cyclic {
                return Ok(());
            }
            for (i, row) in closure.iter().enumerate() { for (j, reached) in row.iter().enumerate() {
                proptest::prop_assert_eq!(order.reaches(i, j), *reached, "{} {}", i, j);
            } }
        }
    }
}
