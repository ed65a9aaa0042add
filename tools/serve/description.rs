//! What the server answers to which request, as OpenAPI has it.

use super::body::{FIELD, KINDS, MOST_POSTERS};
use super::web::Web;
use onesheet::training::history::VERSION;
use serde_json::{Map, Value, json};

/// Statuses that every address may answer with.
const OF_ALL: [(u16, &str); 2] = [
    (403, "The script of another site's page asks (`Origin`)"),
    (
        421,
        "The server is for its own machine alone, and is asked by another name than localhost or a loopback address (`Host`)",
    ),
];

/// The description in OpenAPI 3.1.
pub fn openapi(web: &Web) -> Value {
    let mut paths = Map::new();
    for (path, id, summary, kind, schema) in [
        ("/", "page", "The page", "text/html", json!({ "type": "string" })),
        ("/page.css", "style", "The style of the page", "text/css", json!({ "type": "string" })),
        ("/page.js", "script", "The script of the page", "text/javascript", json!({ "type": "string" })),
        ("/openapi.json", "description", "This description", "application/json", json!({ "type": "object" })),
        ("/health", "health", "Whether the server answers", "application/json", health()),
        ("/model", "model", "What is asked, and within which limits", "application/json", reference("Model")),
    ] {
        let found = json!({ "description": summary, "content": { kind: { "schema": schema } } });
        let get = json!({ "operationId": id, "summary": summary, "responses": responses(found, &[]) });
        paths.insert(path.into(), json!({ "get": get }));
    }
    paths.insert("/answers".into(), json!({ "post": answers(web) }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Onesheet: the genres of a film from its poster",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
            "description": format!("{VERSION}, {} at {2}×{2} pixels, {}", web.network, web.device, web.image_size),
        },
        "paths": paths,
        "components": { "schemas": {
            "Answers": object(json!({ "answers": { "type": "array", "minItems": 1, "items": reference("Poster") } }), &[]),
            "Poster": poster(web),
            "Genre": genre(),
            "Model": model(),
            "Problem": problem(),
        } },
    })
}

fn answers(web: &Web) -> Value {
    let limits = &web.limits;
    let mut content = Map::new();
    for kind in KINDS {
        content.insert(
            kind.into(),
            json!({ "schema": { "type": "string", "contentMediaType": kind, "format": "binary" } }),
        );
    }
    let form = json!({
        "type": "object",
        "required": [FIELD],
        "additionalProperties": false,
        "properties": { FIELD: {
            "type": "array", "minItems": 1, "maxItems": MOST_POSTERS, "items": { "type": "string", "format": "binary" },
        } },
    });
    let encoding = json!({ FIELD: { "contentType": KINDS.join(", ") } });
    content.insert("multipart/form-data".into(), json!({ "schema": form, "encoding": encoding }));
    let found = json!({
        "description": "What the model says of each poster, in the order in which they came",
        "content": { "application/json": { "schema": reference("Answers") } },
    });
    let too_large = format!(
        "More than {} bytes, a picture of more than {} pixels or with a side of more than 4096, or more than {MOST_POSTERS} posters",
        limits.max_bytes, limits.max_pixels
    );
    let late = format!("The request was not all there after {} seconds", limits.max_seconds);
    let full = format!("{} requests are in work already", limits.max_waiting);
    let mut responses = responses(
        found,
        &[
            (400, "A picture is damaged or none, or the form is"),
            (408, &late),
            (413, &too_large),
            (415, "The body is of a kind that is not read"),
            (422, "The query asks for something else than it can"),
            (500, "The device has failed, and the server ends"),
            (503, &full),
        ],
    );
    responses["503"]["headers"] = json!({
        "Retry-After": { "description": "Seconds to wait", "required": true, "schema": { "type": "integer", "minimum": 1 } },
    });
    json!({
        "operationId": "answers",
        "summary": "The genres of posters",
        "description": "A poster is the body itself, or each of several is a field of a form. If one cannot be read, none is answered. Posters \
                        that wait at the same time, whoever sent them, are asked about together.",
        "parameters": [
            {
                "name": "explain", "in": "query", "schema": { "type": "boolean", "default": false },
                "description": "Draw where the model sees a genre (Grad-CAM), for each genre that is named, or with `top` for each that is \
                                listed: a `picture` as a data: address of a PNG",
            },
            {
                "name": "top", "in": "query", "schema": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
                "description": "List so many most probable genres only",
            },
        ],
        "requestBody": { "required": true, "content": content },
        "responses": responses,
    })
}

/// What an address answers: what is `found`, and why it is not, by status.
fn responses(found: Value, problems: &[(u16, &str)]) -> Value {
    let mut responses = json!({ "200": found });
    for (status, why) in problems.iter().chain(&OF_ALL) {
        let content = json!({ "application/problem+json": { "schema": reference("Problem") } });
        responses[status.to_string()] = json!({ "description": why, "content": content });
    }
    responses
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object that has these properties and no others; all of them but the `optional` ones always.
fn object(properties: Value, optional: &[&str]) -> Value {
    let names = properties.as_object().into_iter().flat_map(Map::keys);
    let required: Vec<&String> = names.filter(|name| !optional.contains(&name.as_str())).collect();
    json!({ "type": "object", "required": required, "additionalProperties": false, "properties": properties })
}

fn number(lowest: f64, highest: f64, what: &str) -> Value {
    json!({ "type": "number", "minimum": lowest, "maximum": highest, "description": what })
}

fn text(what: &str) -> Value {
    json!({ "type": "string", "description": what })
}

fn whole(what: &str) -> Value {
    json!({ "type": "integer", "minimum": 1, "description": what })
}

fn health() -> Value {
    object(json!({ "status": { "const": "ok" } }), &[])
}

/// What [`super::web`] says of how the model answers, of the model and of each poster.
fn answering() -> [(&'static str, Value); 5] {
    [
        ("device", text("What computes")),
        ("thresholds", json!({ "enum": ["model", "tuned", "given"], "description": "Whose thresholds they are" })),
        (
            "calibrated",
            json!({ "type": "boolean", "description": "Whether logits are divided by the model's temperature" }),
        ),
        (
            "temperature",
            json!({ "type": "number", "exclusiveMinimum": 0, "description": "What logits are divided by" }),
        ),
        (
            "mirror",
            json!({ "type": "boolean", "description": "Whether logits are the mean of those of the poster and of its mirror image" }),
        ),
    ]
}

fn poster(web: &Web) -> Value {
    let mut properties = json!({
        "schema": { "type": "integer", "const": 1, "description": "The version of this form" },
        "kind": { "const": "poster" },
        "poster": text("The name of its file, if the form has it"),
        "genres": {
            "type": "array", "minItems": 1, "maxItems": web.genres.len(), "items": reference("Genre"),
            "description": "The most probable first",
        },
    });
    for (name, schema) in answering() {
        properties[name] = schema;
    }
    object(properties, &["poster"])
}

fn genre() -> Value {
    let picture = json!({
        "type": "string", "pattern": "^data:image/png;base64,",
        "description": "The poster in grey below the colours of the heat map, from dark violet for nothing to yellow for the most",
    });
    let properties = json!({
        "genre": text("Its name"),
        "probability": number(0.0, 1.0, "What the model says"),
        "threshold": number(0.0, 1.0, "From which probability on it is named"),
        "named": { "type": "boolean", "description": "Whether the probability is the threshold or more" },
        "picture": picture,
    });
    object(properties, &["picture"])
}

fn model() -> Value {
    let genre = object(
        json!({ "genre": text("Its name"), "threshold": number(0.0, 1.0, "From which probability on it is named") }),
        &[],
    );
    let limits = json!({
        "bytes": whole("Most bytes of a request"),
        "pixels": whole("Most pixels of a picture"),
        "waiting": whole("Most requests in work at a time"),
        "seconds": whole("Most seconds until a request is all there"),
        "posters": whole("Most posters of a request"),
    });
    let mut properties = json!({
        "network": text("Its title"),
        "image_size": whole("The side of the square, in pixels, that posters become"),
        "genres": { "type": "array", "items": genre, "description": "In the model's order" },
        "version": text("The program"),
        "limits": object(limits, &[]),
    });
    for (name, schema) in answering() {
        properties[name] = schema;
    }
    object(properties, &[])
}

fn problem() -> Value {
    let properties = json!({
        "type": { "const": "about:blank" },
        "title": text("What the status means"),
        "status": { "type": "integer", "minimum": 400, "maximum": 599 },
        "detail": text("What is wrong, and what to do about it"),
    });
    object(properties, &[])
}
