//! Who is with whom.

/// Groups of `members` places among `users`, each of whom is in `each` of them, with others in each: round by round a group's
/// members stand further apart.
pub(crate) fn groups(users: usize, members: usize, each: usize) -> Vec<Vec<usize>> {
    let count = users.div_ceil(members.max(1)).max(1);
    let group = |round: usize, place: usize| {
        let places = (0..members).map(move |n| n * count + (place + n * round) % count);
        places.filter(|member| *member < users)
    };
    let all =
        (0..each).flat_map(|round| (0..count).map(move |place| group(round, place).collect()));
    all.filter(|members: &Vec<usize>| !members.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_user_is_in_equally_many_groups() {
        let groups = groups(250, 10, 3);
        let mut of: BTreeMap<usize, Vec<&Vec<usize>>> = BTreeMap::new();
        for group in &groups {
            assert_eq!(group.len(), 10);
            for member in group {
                of.entry(*member).or_default().push(group);
            }
        }
        assert_eq!(of.len(), 250);
        assert!(of.values().all(|own| own.len() == 3));
        let together = |a: usize, b: usize| of[&a].iter().filter(|own| own.contains(&b)).count();
        assert!((0..250).all(|b| b == 7 || together(7, b) <= 1));
    }
}
