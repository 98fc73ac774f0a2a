//! A file of rows in [Parquet](https://parquet.apache.org/docs/file-format/), as the tables of SQL
//! have them: optional columns, compressed with zstd, written a group of rows at a time.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{
    Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType, ZstdLevel,
};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use throughline_store::{SqlKind, SqlValue};

/// Most rows of a group.
const GROUP_ROWS: usize = 65_536;

/// Bytes of values from which on a group is written, however few its rows are.
const GROUP_BYTES: usize = 64 * 1024 * 1024;

/// How columns end that hold nanoseconds since the Unix epoch.
const MOMENT: &str = "_unix_nano";

/// A column: its name and type.
pub(crate) type ParquetColumn = (String, SqlKind);

/// The values of a column, those that there are, and for each row whether there is one.
#[derive(Debug)]
struct Cells {
    values: Values,
    /// 1 for a value, 0 for none: Parquet's definition levels.
    levels: Vec<i16>,
}

#[derive(Debug)]
enum Values {
    Integers(Vec<i64>),
    Reals(Vec<f64>),
    Bytes(Vec<ByteArray>),
}

/// A file that is being written.
pub(crate) struct ParquetFile<W: Write + Send = File> {
    writer: SerializedFileWriter<W>,
    cells: Vec<Cells>,
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file of these columns. Integers whose name ends with `_unix_nano` are timestamps.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn begin(out: W, columns: &[ParquetColumn]) -> io::Result<Self> {
        let fields = columns.iter().map(|(name, kind)| field(name, *kind));
        let fields = fields.collect::<Result<_, _>>().map_err(io::Error::other)?;
        let schema = Type::group_type_builder("rows").with_fields(fields).build();
        let level = ZstdLevel::default();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_created_by(format!("throughline {}", env!("CARGO_PKG_VERSION")));
        let schema = Arc::new(schema.map_err(io::Error::other)?);
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties.build()));
        Ok(Self {
            writer: writer.map_err(io::Error::other)?,
            cells: columns.iter().map(|(_, kind)| Cells::of(*kind)).collect(),
            rows: 0,
            bytes: 0,
        })
    }

    /// Adds a row, with a value a column. A value of another type than its column's, which our tables do not
    /// have, is null.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn row(&mut self, values: Vec<SqlValue>) -> io::Result<()> {
        for (cells, value) in self.cells.iter_mut().zip(values) {
            self.bytes += cells.push(value);
        }
        self.rows += 1;
        if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.write_group()?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> io::Result<()> {
        let mut group = self.writer.next_row_group().map_err(io::Error::other)?;
        for cells in &mut self.cells {
            let column = group.next_column().map_err(io::Error::other)?;
            let mut column = column.ok_or_else(|| io::Error::other("a column too many"))?;
            cells.write(column.untyped()).map_err(io::Error::other)?;
            column.close().map_err(io::Error::other)?;
        }
        group.close().map_err(io::Error::other)?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// Writes what is left and the footer, without which a file says nothing.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if self.rows > 0 {
            self.write_group()?;
        }
        self.writer.into_inner().map_err(io::Error::other)
    }
}

impl Cells {
    fn of(kind: SqlKind) -> Self {
        let values = match kind {
            SqlKind::Integer => Values::Integers(Vec::new()),
            SqlKind::Real => Values::Reals(Vec::new()),
            SqlKind::Text | SqlKind::Json | SqlKind::Blob => Values::Bytes(Vec::new()),
        };
        Self { values, levels: Vec::new() }
    }

    /// Answers the bytes that were added.
    fn push(&mut self, value: SqlValue) -> usize {
        let bytes = match (&mut self.values, value) {
            (Values::Integers(values), SqlValue::Integer(value)) => {
                values.push(value);
                size_of::<i64>()
            }
            (Values::Reals(values), SqlValue::Real(value)) => {
                values.push(value);
                size_of::<f64>()
            }
            (Values::Reals(values), SqlValue::Integer(value)) => {
                values.push(value as f64);
                size_of::<f64>()
            }
            (Values::Bytes(values), SqlValue::Text(text)) => {
                let bytes = text.len();
                values.push(ByteArray::from(text.into_bytes()));
                bytes
            }
            (Values::Bytes(values), SqlValue::Blob(value)) => {
                let bytes = value.len();
                values.push(ByteArray::from(value));
                bytes
            }
            _ => {
                self.levels.push(0);
                return 0;
            }
        };
        self.levels.push(1);
        bytes
    }

    fn write(&mut self, column: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = std::mem::take(&mut self.levels);
        match (&mut self.values, column) {
            (Values::Integers(values), ColumnWriter::Int64ColumnWriter(column)) => {
                column.write_batch(&std::mem::take(values), Some(&levels), None)?;
            }
            (Values::Reals(values), ColumnWriter::DoubleColumnWriter(column)) => {
                column.write_batch(&std::mem::take(values), Some(&levels), None)?;
            }
            (Values::Bytes(values), ColumnWriter::ByteArrayColumnWriter(column)) => {
                column.write_batch(&std::mem::take(values), Some(&levels), None)?;
            }
            _ => return Err(ParquetError::General("a column of another type".to_owned())),
        }
        Ok(())
    }
}

fn field(name: &str, kind: SqlKind) -> Result<TypePtr, ParquetError> {
    let (physical, logical) = match kind {
        SqlKind::Text => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
        SqlKind::Json => (PhysicalType::BYTE_ARRAY, Some(LogicalType::Json)),
        SqlKind::Blob => (PhysicalType::BYTE_ARRAY, None),
        SqlKind::Real => (PhysicalType::DOUBLE, None),
        SqlKind::Integer if name.ends_with(MOMENT) => {
            (PhysicalType::INT64, Some(LogicalType::timestamp(true, TimeUnit::NANOS)))
        }
        SqlKind::Integer => (PhysicalType::INT64, None),
    };
    let field = Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical);
    Ok(Arc::new(field.build()?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::Field;

    use super::*;

    #[test]
    fn rows_come_back_as_they_were_with_what_is_null() {
        let columns = [
            ("name".to_owned(), SqlKind::Text),
            ("start_unix_nano".to_owned(), SqlKind::Integer),
            ("tokens".to_owned(), SqlKind::Integer),
            ("cost_usd".to_owned(), SqlKind::Real),
            ("attributes".to_owned(), SqlKind::Json),
            ("raw".to_owned(), SqlKind::Blob),
        ];
        let mut file = ParquetFile::begin(Vec::new(), &columns).expect("a file");
        let count = GROUP_ROWS as i64 + 3;
        for at in 0..count {
            let text = if at % 7 == 0 { SqlValue::Null } else { SqlValue::Text(format!("s{at}")) };
            let cost = if at % 2 == 0 { SqlValue::Integer(at) } else { SqlValue::Real(0.5) };
            file.row(vec![
                text,
                SqlValue::Integer(1_764_000_000_000_000_000 + at),
                SqlValue::Null,
                cost,
                SqlValue::Text("{}".to_owned()),
                SqlValue::Blob(vec![0, 255]),
            ])
            .expect("written");
        }
        let written = Bytes::from(file.finish().expect("whole"));
        let reader = SerializedFileReader::new(written).expect("a Parquet file");
        assert_eq!(reader.metadata().num_row_groups(), 2);
        assert_eq!(reader.metadata().file_metadata().num_rows(), count);
        for (at, row) in (0..count).zip(reader.get_row_iter(None).expect("rows")) {
            let row = row.expect("a row");
            let values: Vec<Field> =
                row.get_column_iter().map(|(_, field)| field.clone()).collect();
            let name = if at % 7 == 0 { Field::Null } else { Field::Str(format!("s{at}")) };
            let cost = if at % 2 == 0 { at as f64 } else { 0.5 };
            assert_eq!(values[0], name);
            assert_eq!(values[2], Field::Null);
            assert_eq!(values[3], Field::Double(cost));
            assert_eq!(values[4], Field::Str("{}".to_owned()));
            assert_eq!(values[5], Field::Bytes(ByteArray::from(vec![0, 255])));
        }
        let schema = reader.metadata().file_metadata().schema();
        let start = schema.get_fields()[1].get_basic_info();
        assert!(matches!(start.logical_type_ref(), Some(LogicalType::Timestamp(_))));
    }
}
