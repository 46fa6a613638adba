//! One page of a listing, by key: rows that are inserted meanwhile neither repeat nor hide others.

use std::cmp::Reverse;

use sea_orm::{
    ConnectionTrait, EntityTrait, ExprTrait, Order, QueryFilter, QueryOrder, QueryResult, QuerySelect,
    QueryTrait, Select, sea_query::Expr,
};
use uuid::Uuid;

use super::error::StoreError;
use crate::domain::page::{MAX_PAGE_SIZE, Order as Direction, Page, PageRequest};

/// Reads one page of all that is selected, ordered by `id`, whose values are the row's place in the
/// listing. No row may be in two of the selects; where there are several, nothing can be skipped.
pub(super) async fn page<E, T>(
    database: &impl ConnectionTrait,
    selects: Vec<Select<E>>,
    id: E::Column,
    request: &PageRequest,
    read: fn(&QueryResult) -> Result<T, StoreError>,
    id_of: fn(&T) -> Uuid,
) -> Result<Page<T>, StoreError>
where
    E: EntityTrait,
{
    let size = std::cmp::min(request.size, MAX_PAGE_SIZE);
    if size == 0 {
        return Ok(Page {
            items: Vec::new(),
            next: None,
        });
    }
    let place = || Expr::col((E::default(), id));
    let (order, follows): (Order, fn(Expr, Uuid) -> Expr) = match request.order {
        Direction::Ascending => (Order::Asc, |id, after| id.gt(after)),
        Direction::Descending => (Order::Desc, |id, after| id.lt(after)),
    };
    let mut items = Vec::new();
    for select in selects {
        let mut select = select.order_by(id, order.clone()).limit(u64::from(size) + 1);
        if let Some(after) = request.after {
            select = select.filter(follows(place(), after));
        }
        if request.skip > 0 {
            // Both databases count rows in signed 64 bits.
            select = select.offset(std::cmp::min(request.skip, i64::MAX.unsigned_abs()));
        }
        for row in database.query_all(select.as_query()).await? {
            items.push(read(&row)?);
        }
    }
    match request.order {
        Direction::Ascending => items.sort_by_key(id_of),
        Direction::Descending => items.sort_by_key(|item| Reverse(id_of(item))),
    }
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = items.len() > size;
    items.truncate(size);
    let next = items.last().filter(|_| more).map(id_of);
    Ok(Page { items, next })
}

/// Repeats the last element until the length is a power of two, so that `IN` lists of any length
/// need few prepared statements.
pub(super) fn padded<T: Clone>(values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    if let Some(last) = values.last().cloned() {
        values.resize(values.len().next_power_of_two(), last);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::padded;

    #[test]
    fn padding_repeats_the_last_value_up_to_a_power_of_two() {
        assert_eq!(padded::<u8>(&[]), Vec::<u8>::new());
        assert_eq!(padded(&[1]), [1]);
        assert_eq!(padded(&[1, 2, 3]), [1, 2, 3, 3]);
        assert_eq!(padded(&[1, 2, 3, 4, 5]).len(), 8);
    }
}
