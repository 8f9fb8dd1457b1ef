//! Ids and times in Postgres' own types. A `timestamptz` is microseconds since the year 2000, so nothing is lost.

use contracts::values::{ReservationId, Timestamp};
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, types::Oid},
};
use uuid::Uuid;

use crate::ledger::rows::{StoredId, StoredTime};

/// 2000-01-01 in microseconds since the Unix epoch.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The last and the first moment that a `timestamptz` can be; what is beyond is `infinity`.
const MICROS_MAX: i64 = 9_223_371_331_199_999_999;
const MICROS_MIN: i64 = -211_813_488_000_000_000;
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);

impl Type<Postgres> for StoredId {
    fn type_info() -> PgTypeInfo {
        <Uuid as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for StoredId {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(ReservationId(<Uuid as Decode<Postgres>>::decode(value)?)))
    }
}

impl Type<Postgres> for StoredTime {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for StoredTime {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for StoredTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = match self.0.0.saturating_sub(POSTGRES_EPOCH_MICROS) {
            micros if micros > MICROS_MAX => i64::MAX,
            micros if micros < MICROS_MIN => i64::MIN,
            micros => micros,
        };
        <i64 as Encode<Postgres>>::encode(micros, buffer)
    }
}

impl<'r> Decode<'r, Postgres> for StoredTime {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Self(Timestamp(micros.saturating_add(POSTGRES_EPOCH_MICROS))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(micros: i64) -> i64 {
        let mut buffer = PgArgumentBuffer::default();
        let is_null = StoredTime(Timestamp(micros)).encode_by_ref(&mut buffer).expect("encodes");
        assert!(matches!(is_null, IsNull::No));
        i64::from_be_bytes(buffer[..].try_into().expect("eight bytes"))
    }

    #[test]
    fn a_time_beyond_postgres_reach_is_infinite() {
        assert_eq!(encoded(POSTGRES_EPOCH_MICROS), 0);
        assert_eq!(encoded(POSTGRES_EPOCH_MICROS - 1), -1);
        assert_eq!((encoded(i64::MAX), encoded(i64::MIN)), (i64::MAX - POSTGRES_EPOCH_MICROS, i64::MIN));
    }
}
