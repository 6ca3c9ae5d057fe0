//! The order in which servers take their turns.

/// Returns the order of `count` servers in a round, as places in the list of servers.
///
/// With a fixed order, the server measured after one with a thread per connection lost 8 % of its rate: the kernel was still ending the
/// threads of the other. So each round starts with a different server, and predecessors change as well. The rows of a Williams square do
/// both: for an even number of servers, in `count` rounds, each server follows each other server exactly once (E. J. Williams, 1949).
pub fn order(round: usize, count: usize) -> Vec<usize> {
    // The first row is 0, 1, n-1, 2, n-2, ...; each further row adds one to every element.
    let zigzag = |step: usize| if step % 2 == 1 { step.div_ceil(2) } else { count - step / 2 };
    (0..count).map(|step| (zigzag(step) + round) % count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_server_takes_one_turn_per_round() {
        for count in 1..20 {
            for round in 0..2 * count {
                let servers: BTreeSet<usize> = order(round, count).into_iter().collect();
                assert_eq!(servers, (0..count).collect(), "round {round}");
            }
        }
    }

    #[test]
    fn every_round_starts_with_a_different_server() {
        for count in 1..20 {
            let first: BTreeSet<usize> = (0..count).map(|round| order(round, count)[0]).collect();
            assert_eq!(first.len(), count);
        }
    }

    #[test]
    fn with_an_even_number_no_server_follows_another_twice() {
        for count in (2..20).step_by(2) {
            let orders = (0..count).map(|round| order(round, count));
            let pairs: Vec<(usize, usize)> =
                orders.flat_map(|order| order.windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>()).collect();
            assert_eq!(pairs.iter().collect::<BTreeSet<_>>().len(), pairs.len(), "{count} servers");
        }
    }
}
