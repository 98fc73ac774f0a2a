//! Values, attributes, resources and scopes.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde::de::MapAccess;

use super::{Message, Slot};

impl Message for AnyValue {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        let value = match name {
            "stringValue" => slot.optional_text()?.map(Value::StringValue),
            "boolValue" => slot.optional_number()?.map(Value::BoolValue),
            "intValue" => slot.optional_number()?.map(Value::IntValue),
            "doubleValue" => slot.optional_number()?.map(Value::DoubleValue),
            "arrayValue" => slot.message()?.map(Value::ArrayValue),
            "kvlistValue" => slot.message()?.map(Value::KvlistValue),
            "bytesValue" => slot.base64()?.map(Value::BytesValue),
            _ => return slot.skip(),
        };
        if value.is_some() {
            self.value = value;
        }
        Ok(())
    }
}

impl Message for ArrayValue {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "values" => slot.list(&mut self.values),
            _ => slot.skip(),
        }
    }
}

impl Message for KeyValueList {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "values" => slot.list(&mut self.values),
            _ => slot.skip(),
        }
    }
}

impl Message for KeyValue {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "key" => slot.text(&mut self.key),
            "value" => slot.message_into(&mut self.value),
            _ => slot.skip(),
        }
    }
}

impl Message for Resource {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "attributes" => slot.list(&mut self.attributes),
            "droppedAttributesCount" => slot.number(&mut self.dropped_attributes_count),
            // `entityRefs` only repeats which of the attributes are identifying.
            _ => slot.skip(),
        }
    }
}

impl Message for InstrumentationScope {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "name" => slot.text(&mut self.name),
            "version" => slot.text(&mut self.version),
            "attributes" => slot.list(&mut self.attributes),
            "droppedAttributesCount" => slot.number(&mut self.dropped_attributes_count),
            _ => slot.skip(),
        }
    }
}
