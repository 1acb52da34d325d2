//! The tree of an observation by index, and the top-down division of memory in it.

use super::fill::{Share, fill};
use super::node::Node;
use super::round::{Bound, Caps, Part, ROUNDS, Round, add};
use crate::guest::needs::Needs;
use crate::observation::Observation;
use crate::rules::Rules;
use protocol::limits::WEIGHT_DEFAULT;

/// All containers of an observation: the root first, each container after its parent.
#[derive(Debug, Clone)]
pub(crate) struct Forest {
    pub nodes: Vec<Node>,
    guests: Vec<u32>,
    children: Vec<u32>,
}

impl Forest {
    /// The tree of an observation, with what the host has for guests if that is known. An index that makes no sense
    /// (a recording may hold anything) means the root.
    pub fn new(observation: &Observation, host_bytes: Option<u64>) -> Self {
        let mut nodes = nodes(observation, host_bytes);
        // Members are sorted by container, by counting them first.
        let container = |guest: usize| {
            let at = observation.guests[guest].container;
            if at < nodes.len() { at } else { 0 }
        };
        let containers: Vec<usize> = (0..observation.guests.len()).map(container).collect();
        let mut guests = vec![0; containers.len()];
        let mut children = vec![0; nodes.len() - 1];
        let (mut guest_counts, mut child_counts) = (vec![0u32; nodes.len()], vec![0u32; nodes.len()]);
        containers.iter().for_each(|at| guest_counts[*at] += 1);
        nodes.iter().skip(1).for_each(|node| child_counts[node.parent] += 1);
        let (mut guest_at, mut child_at) = (0, 0);
        for (i, node) in nodes.iter_mut().enumerate() {
            (node.guests, node.children) = ((guest_at, guest_at), (child_at, child_at));
            (guest_at, child_at) = (guest_at + guest_counts[i], child_at + child_counts[i]);
        }
        let put = |range: &mut (u32, u32), into: &mut Vec<u32>, member: usize| {
            into[range.1 as usize] =
                u32::try_from(member).expect("fewer containers than owner ids, fewer guests than processes");
            range.1 += 1;
        };
        for (i, at) in containers.into_iter().enumerate() {
            put(&mut nodes[at].guests, &mut guests, i);
        }
        for i in 1..nodes.len() {
            let parent = nodes[i].parent;
            put(&mut nodes[parent].children, &mut children, i);
        }
        Self { nodes, guests, children }
    }

    /// Guests directly in a container, by their index in the observation.
    pub fn guests_of(&self, node: usize) -> &[u32] {
        let (from, to) = self.nodes[node].guests;
        &self.guests[from as usize..to as usize]
    }

    /// Containers directly in a container.
    pub fn children_of(&self, node: usize) -> &[u32] {
        let (from, to) = self.nodes[node].children;
        &self.children[from as usize..to as usize]
    }

    /// Sums up what is inside each container, bottom-up: children come after their parents.
    pub fn measure(&mut self, observation: &Observation, needs: &[Needs], guest_caps: &[Caps], rules: Rules) {
        for at in (0..self.nodes.len()).rev() {
            let (mut inner, mut plain, mut hard_floor) = ([0; ROUNDS], [0; ROUNDS], 0u64);
            for guest in self.guests_of(at) {
                let guest = *guest as usize;
                add(&mut inner, &guest_caps[guest]);
                add(&mut plain, &guest_caps[guest]);
                let least = needs[guest].hard_floor.saturating_add(observation.guests[guest].overhead_bytes);
                hard_floor = hard_floor.saturating_add(least);
            }
            for child in self.children_of(at) {
                let child = &self.nodes[*child as usize];
                add(&mut inner, &child.caps);
                add(&mut plain, &child.plain);
                hard_floor = hard_floor.saturating_add(child.hard_floor);
            }
            let limits = observation.containers.get(at).map(|view| &view.limits);
            self.nodes[at].set_caps(inner, plain, hard_floor, limits, rules);
        }
    }

    /// Divides what each container may use among its members, top-down, in rounds. Returns the part of each guest and
    /// the containers whose guests need more than they may use.
    pub fn share(&mut self, guest_caps: &[Caps], needs: &[Needs], tax: u32) -> (Vec<Part>, Vec<usize>) {
        let nothing = Part { bytes: 0, bound: Bound::None, round: Round::All };
        let (mut parts, mut short) = (vec![nothing; guest_caps.len()], vec![]);
        let (mut shares, mut have): (Vec<Share>, Vec<u64>) = (vec![], vec![]);
        let mut rounds = vec![Round::All; self.nodes.len()];
        self.nodes[0].granted = u64::MAX;
        for at in 0..self.nodes.len() {
            if at > 0 && self.nodes[at].ceiling > self.nodes[at].granted {
                let parent = self.nodes[at].parent;
                self.nodes[at].bound = self.nodes[parent].bound;
                rounds[at] = rounds[parent];
            }
            let node = &self.nodes[at];
            let (budget, bound, inner) = (node.budget(), node.bound, node.inner);
            // The first round for which the budget is too small; all rounds before it are given in full.
            let fails = Round::ORDER.into_iter().find(|round| inner[*round as usize] > budget);
            let round = fails.unwrap_or(rounds[at]);
            match fails {
                None => {}
                Some(Round::Floor) => short.push(at),
                Some(round) => {
                    self.members(at, round, guest_caps, needs, &mut shares);
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

    /// The members of a container as they take part in a round after the first: guests, then containers.
    fn members(
        &self,
        at: usize,
        round: Round,
        guest_caps: &[Caps],
        needs: &[Needs],
        shares: &mut Vec<Share>,
    ) {
        let (now, before) = (round as usize, round as usize - 1);
        shares.clear();
        for guest in self.guests_of(at) {
            let (caps, needs) = (&guest_caps[*guest as usize], &needs[*guest as usize]);
            let knee = match round {
                Round::Need => needs.working_need,
                Round::Keep | Round::All => caps[Round::Demand as usize],
                _ => u64::MAX,
            };
            shares.push(Share { have: caps[before], cap: caps[now], knee, weight: WEIGHT_DEFAULT });
        }
        for child in self.children_of(at) {
            let child = &self.nodes[*child as usize];
            let knee = if round >= Round::Keep { child.caps[Round::Demand as usize] } else { u64::MAX };
            shares.push(Share { have: child.caps[before], cap: child.caps[now], knee, weight: child.weight });
        }
    }
}

/// The containers of an observation with their ceilings; members come later.
fn nodes(observation: &Observation, host_bytes: Option<u64>) -> Vec<Node> {
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
    // What the host has is for guests: what containers are charged in addition is not subtracted from it a second
    // time.
    let charged = nodes.iter().fold(0u64, |sum, node| sum.saturating_add(node.charged));
    let host = host_bytes.map(|bytes| (bytes, bytes.saturating_add(charged)));
    if let Some((bytes, ceiling)) = host.filter(|(_, ceiling)| *ceiling < nodes[0].ceiling) {
        (nodes[0].ceiling, nodes[0].bound) = (ceiling, Bound::Host { bytes });
    }
    nodes
}
