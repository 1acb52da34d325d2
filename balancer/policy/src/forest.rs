//! The tree of an observation by index, and the top-down division of memory in it.

use super::demand::Sense;
use super::fill::{Share, fill};
use super::node::Node;
use super::observation::Observation;
use super::round::{Bound, Caps, Part, ROUNDS, Round, add};
use super::rules::{Rule, Rules};
use protocol::limits::WEIGHT_DEFAULT;

/// All containers of an observation, the root first, each behind the one it is in.
#[derive(Debug, Clone)]
pub(super) struct Forest {
    pub nodes: Vec<Node>,
    guests: Vec<u32>,
    children: Vec<u32>,
}

impl Forest {
    /// The tree of an observation, with what the host has for guests if that is known. A place that makes no sense (a recording may
    /// hold anything) means the root.
    pub fn new(observation: &Observation, host_bytes: Option<u64>) -> Self {
        let index = |i: usize| {
            u32::try_from(i).expect("fewer containers than owner ids, fewer guests than processes")
        };
        let mut nodes: Vec<Node> = Vec::with_capacity(observation.containers.len().max(1));
        for (i, view) in observation.containers.iter().enumerate() {
            let limit = view.limits.ceiling_bytes();
            let bound = limit.map_or(Bound::None, |bytes| Bound::Container { index: i, bytes });
            let parent = if view.parent < i { view.parent } else { 0 };
            nodes.push(Node::new(parent, view.limits.weight.max(1), limit.unwrap_or(u64::MAX), bound));
            nodes[i].charged = view.charged_bytes;
        }
        if nodes.is_empty() {
            nodes.push(Node::new(0, WEIGHT_DEFAULT, u64::MAX, Bound::None));
        }
        // What the host has is for guests: what is charged beside them is not taken from it once more.
        let charged = nodes.iter().fold(0u64, |sum, node| sum.saturating_add(node.charged));
        let host = host_bytes.map(|bytes| (bytes, bytes.saturating_add(charged)));
        if let Some((bytes, ceiling)) = host.filter(|(_, ceiling)| *ceiling < nodes[0].ceiling) {
            (nodes[0].ceiling, nodes[0].bound) = (ceiling, Bound::Host { bytes });
        }
        // Members sorted by container, by counting.
        let place = |container: usize| if container < nodes.len() { container } else { 0 };
        let mut guests = vec![0; observation.guests.len()];
        let mut children = vec![0; nodes.len() - 1];
        let (mut guest_counts, mut child_counts) = (vec![0u32; nodes.len()], vec![0u32; nodes.len()]);
        observation.guests.iter().for_each(|guest| guest_counts[place(guest.container)] += 1);
        nodes.iter().skip(1).for_each(|node| child_counts[node.parent] += 1);
        let (mut guest_at, mut child_at) = (0, 0);
        for (i, node) in nodes.iter_mut().enumerate() {
            (node.guests, node.children) = ((guest_at, guest_at), (child_at, child_at));
            (guest_at, child_at) = (guest_at + guest_counts[i], child_at + child_counts[i]);
        }
        let put = |range: &mut (u32, u32), into: &mut Vec<u32>, what: usize| {
            into[range.1 as usize] = index(what);
            range.1 += 1;
        };
        for (i, guest) in observation.guests.iter().enumerate() {
            let container = if guest.container < nodes.len() { guest.container } else { 0 };
            put(&mut nodes[container].guests, &mut guests, i);
        }
        for i in 1..nodes.len() {
            let parent = nodes[i].parent;
            put(&mut nodes[parent].children, &mut children, i);
        }
        Self { nodes, guests, children }
    }

    /// Guests directly in a container, by their place in the observation.
    pub fn guests_of(&self, node: usize) -> &[u32] {
        let (from, to) = self.nodes[node].guests;
        &self.guests[from as usize..to as usize]
    }

    /// Containers directly in a container.
    pub fn children_of(&self, node: usize) -> &[u32] {
        let (from, to) = self.nodes[node].children;
        &self.children[from as usize..to as usize]
    }

    /// Sums up what is inside each container, bottom-up.
    pub fn measure(
        &mut self,
        observation: &Observation,
        senses: &[Sense],
        guest_caps: &[Caps],
        rules: Rules,
    ) {
        for at in (0..self.nodes.len()).rev() {
            let (mut inner, mut plain, mut bare) = ([0; ROUNDS], [0; ROUNDS], 0u64);
            for guest in self.guests_of(at) {
                let guest = *guest as usize;
                add(&mut inner, &guest_caps[guest]);
                add(&mut plain, &guest_caps[guest]);
                let least = senses[guest].bare.saturating_add(observation.guests[guest].overhead_bytes);
                bare = bare.saturating_add(least);
            }
            for child in self.children_of(at) {
                let child = &self.nodes[*child as usize];
                add(&mut inner, &child.caps);
                add(&mut plain, &child.plain);
                bare = bare.saturating_add(child.bare);
            }
            let limits =
                observation.containers.get(at).map(|view| (view.limits.min_bytes, view.limits.low_bytes));
            let (own_min, own_low) = limits.unwrap_or_default();
            let node = &mut self.nodes[at];
            (node.inner, node.bare) = (inner, bare);
            let charged = [node.charged; ROUNDS];
            add(&mut inner, &charged);
            add(&mut plain, &charged);
            // Protection inside a container is divided inside it: it is worth what the container itself is protected with.
            let sums = if rules.has(Rule::BoundedProtection) { plain } else { inner };
            let [floor, kept, inner_min, inner_low, used, need, want, keep, all] =
                sums.map(|cap| cap.min(node.ceiling));
            // Beyond its ceiling a container gets the bare floors only: a guest that runs out of memory again and again
            // takes from those under the same limit, never from those beside it.
            let floor = floor.max(bare);
            let all = all.max(floor);
            // What it has already, and what is set aside inside it, it keeps while there is enough.
            let keep = inner[Round::Keep as usize].min(node.ceiling).max(keep);
            // What is held by those who do not give is there in every round: those beside them must not pay for it alone.
            node.plain =
                [floor, kept, inner_min, inner_low, used, need, want, keep, all].map(|cap| cap.max(floor));
            let kept = kept.clamp(floor, all);
            let min = inner_min.max(own_min).clamp(kept, all);
            let low = inner_low.max(own_low.min(want)).clamp(min, all);
            let used = used.clamp(low, all);
            let need = need.clamp(used, all);
            let want = want.clamp(need, all);
            node.caps = [floor, kept, min, low, used, need, want, keep.clamp(want, all), all];
        }
    }

    /// Divides what each container may use among its members, top-down, by the rounds. Returns each guest's part and the
    /// containers whose guests need more than they may use.
    pub fn share(&mut self, guest_caps: &[Caps], senses: &[Sense], tax: u32) -> (Vec<Part>, Vec<usize>) {
        let nothing = Part { bytes: 0, bound: Bound::None, round: Round::All };
        let (mut parts, mut short) = (vec![nothing; guest_caps.len()], vec![]);
        let (mut shares, mut have): (Vec<Share>, Vec<u64>) = (vec![], vec![]);
        let mut rounds = vec![Round::All; self.nodes.len()];
        self.nodes[0].granted = u64::MAX;
        for at in 0..self.nodes.len() {
            if at > 0 {
                let parent = self.nodes[at].parent;
                if self.nodes[at].ceiling > self.nodes[at].granted {
                    self.nodes[at].bound = self.nodes[parent].bound;
                    rounds[at] = rounds[parent];
                }
            }
            let node = &self.nodes[at];
            let (budget, bound, inner) = (node.budget(), node.bound, node.inner);
            // The first round for which it is not enough; everything before is given in full.
            let fails = Round::ORDER.into_iter().find(|round| inner[*round as usize] > budget);
            let round = match fails {
                None => rounds[at],
                Some(round) => round,
            };
            match fails {
                None => {}
                Some(Round::Floor) => short.push(at),
                Some(round) => {
                    let (now, before) = (round as usize, round as usize - 1);
                    shares.clear();
                    for guest in self.guests_of(at) {
                        let (caps, guest) = (&guest_caps[*guest as usize], &senses[*guest as usize]);
                        let knee = match round {
                            Round::Need => guest.working,
                            Round::Keep | Round::All => caps[Round::Want as usize],
                            _ => u64::MAX,
                        };
                        let (have, cap) = (caps[before], caps[now]);
                        shares.push(Share { have, cap, knee, weight: WEIGHT_DEFAULT });
                    }
                    for child in self.children_of(at) {
                        let child = &self.nodes[*child as usize];
                        let knee =
                            if round >= Round::Keep { child.caps[Round::Want as usize] } else { u64::MAX };
                        let (have, cap) = (child.caps[before], child.caps[now]);
                        shares.push(Share { have, cap, knee, weight: child.weight });
                    }
                    fill(&shares, budget, tax, &mut have);
                }
            }
            let given = fails.unwrap_or(Round::All) as usize;
            let filled = fails.is_some_and(|round| round != Round::Floor);
            let guests = self.guests_of(at).len();
            for (i, guest) in self.guests_of(at).iter().enumerate() {
                let guest = *guest as usize;
                let bytes = if filled { have[i] } else { guest_caps[guest][given] };
                parts[guest] = Part { bytes, bound, round };
            }
            let (from, to) = self.nodes[at].children;
            for (i, child) in (from as usize..to as usize).enumerate() {
                let child = self.children[child] as usize;
                let bytes = if filled { have[guests + i] } else { self.nodes[child].caps[given] };
                self.nodes[child].granted = bytes;
                rounds[child] = round;
            }
        }
        (parts, short)
    }
}
