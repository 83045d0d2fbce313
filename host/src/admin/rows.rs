// SPDX-License-Identifier: Apache-2.0
//! The table of all calls: what answers, who may ask, and what the OpenAPI document says of it.

use axum::routing::{MethodRouter, delete, get, post};

use super::{Shared, calls, documents, events, features, reports, services, vendor_keys};
use crate::directory::document::Kind;
use crate::directory::settings::Role;

/// A call.
pub(super) struct Row {
    /// Where.
    pub(super) path: &'static str,
    /// What answers.
    pub(super) handler: MethodRouter<Shared>,
    /// Who may ask.
    pub(super) access: Access,
    /// Whether it was below `/v1` before, and is still.
    pub(super) had_alias: bool,
    /// What the document says.
    pub(super) doc: Doc,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody; the call may look by itself.
    Open,
    /// Whoever has a token of this role or a higher one.
    Role(Role),
}

/// What the document says of a call.
#[derive(Clone, Copy)]
pub(super) struct Doc {
    pub(super) method: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: &'static [Parameter],
    pub(super) sent: Sent,
    pub(super) answered: (u16, Answered),
    /// Statuses of refusals, beside 400, 401 and 403.
    pub(super) refused: &'static [u16],
    /// Takes a version in `If-Match`.
    pub(super) versioned: bool,
    /// Needs a token, though the call looks by itself.
    pub(super) looks: bool,
}

/// A parameter of a query.
#[derive(Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Of,
}

/// What a parameter is.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Text,
    Flag,
    /// A number from and to.
    Number(u64, u64),
    /// One of these.
    Words(&'static [&'static str]),
}

/// The body of a request.
#[derive(Clone, Copy)]
pub(super) enum Sent {
    Nothing,
    /// JSON of a schema.
    Json(&'static str),
    /// JSON of a schema, or nothing.
    Perhaps(&'static str),
    /// A component.
    Component,
    /// Policy files.
    Policy,
}

/// The body of an answer.
#[derive(Clone, Copy)]
pub(super) enum Answered {
    /// JSON of a schema.
    Json(&'static str),
    /// A document of a schema, with its version.
    Document(&'static str),
    /// Server-sent events.
    Events,
    /// Prometheus text.
    Metrics,
}

const LIMIT: Parameter = Parameter { name: "limit", about: "Items on a page.", kind: Of::Number(1, 1000) };
const AFTER: Parameter =
    Parameter { name: "after", about: "Where the page begins: `next` of the one before.", kind: Of::Text };
const PAGE: &[Parameter] = &[LIMIT, AFTER];

const fn text(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind: Of::Text }
}

const ACTIVATE: &[Parameter] =
    &[Parameter { name: "activate", about: "Put it in force (the default), or only keep it.", kind: Of::Flag }];
const SERVICES: &[Parameter] = &[
    LIMIT,
    AFTER,
    text("name", "Only services of this name."),
    Parameter { name: "healthy", about: "Only services that are, or are not.", kind: Of::Flag },
];
const USAGE: &[Parameter] = &[
    Parameter {
        name: "by",
        about: "What is summed up.",
        kind: Of::Words(&["key", "team", "subject", "vendor", "model", "day"]),
    },
    Parameter { name: "days", about: "So many days, today included.", kind: Of::Number(1, 400) },
    text("key", "Only of this virtual key."),
    text("team", "Only of this team."),
    text("subject", "Only of this caller."),
    text("vendor", "Only at this vendor."),
    text("model", "Only of this model."),
    LIMIT,
];
const AUDIT: &[Parameter] = &[
    LIMIT,
    Parameter { name: "before", about: "Only lines with smaller numbers.", kind: Of::Number(0, (1 << 53) - 1) },
    text("actor", "Only of this actor."),
    text("action", "Only this action."),
    text("kind", "Only about this kind."),
    text("id", "Only about this id."),
];
const PRICES: &[Parameter] = &[LIMIT, AFTER, text("model", "Only the price of this model, `vendor/model`.")];
const JOBS: &[Parameter] = &[
    LIMIT,
    text("before", "Where the page begins: `next` of the one before."),
    text("status", "Only jobs of this status."),
    text("subject", "Only jobs of this caller."),
];

/// A call that reads.
fn reads(
    path: &'static str,
    handler: MethodRouter<Shared>,
    id: &'static str,
    summary: &'static str,
    schema: &'static str,
) -> Row {
    Row {
        path,
        handler,
        access: Access::Role(Role::Viewer),
        had_alias: false,
        doc: Doc {
            method: "get",
            id,
            summary,
            query: &[],
            sent: Sent::Nothing,
            answered: (200, Answered::Json(schema)),
            refused: &[],
            versioned: false,
            looks: false,
        },
    }
}

/// A call that changes something.
fn changes(
    (method, path): (&'static str, &'static str),
    handler: MethodRouter<Shared>,
    role: Role,
    id: &'static str,
    summary: &'static str,
    schema: &'static str,
) -> Row {
    let row = reads(path, handler, id, summary, schema);
    Row { access: Access::Role(role), doc: Doc { method, ..row.doc }, ..row }
}

impl Row {
    fn query(self, query: &'static [Parameter]) -> Self {
        Self { doc: Doc { query, ..self.doc }, ..self }
    }

    fn sends(self, sent: Sent) -> Self {
        Self { doc: Doc { sent, ..self.doc }, ..self }
    }

    fn answers(self, status: u16, answered: Answered) -> Self {
        Self { doc: Doc { answered: (status, answered), ..self.doc }, ..self }
    }

    fn refuses(self, refused: &'static [u16]) -> Self {
        Self { doc: Doc { refused, ..self.doc }, ..self }
    }

    fn versioned(self) -> Self {
        Self { doc: Doc { versioned: true, ..self.doc }, ..self }
    }

    fn alias(self) -> Self {
        Self { had_alias: true, ..self }
    }

    fn open(self, looks: bool) -> Self {
        Self { access: Access::Open, doc: Doc { looks, ..self.doc }, ..self }
    }
}

/// Every call.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = probes();
    rows.extend(of_control());
    rows.extend(of_kind(Kind::VirtualKey, ["/api/v1/virtual-keys", "/api/v1/virtual-keys/{id}"], Role::Operator));
    rows.extend(of_kind(Kind::Team, ["/api/v1/teams", "/api/v1/teams/{id}"], Role::Operator));
    rows.extend(of_kind(Kind::Budget, ["/api/v1/budgets", "/api/v1/budgets/{id}"], Role::Operator));
    rows.extend(of_kind(Kind::Limit, ["/api/v1/limits", "/api/v1/limits/{id}"], Role::Operator));
    rows.extend(of_kind(Kind::AdminToken, ["/api/v1/admin-tokens", "/api/v1/admin-tokens/{id}"], Role::Admin));
    rows.extend(rotations());
    rows.extend(of_vendor_keys());
    rows.extend(of_features());
    rows.extend(of_services());
    rows.extend(of_reports());
    rows
}

fn probes() -> Vec<Row> {
    let probe = || get(calls::probe);
    vec![
        reads("/healthz", probe(), "healthy", "The process answers.", "Health").open(false),
        reads("/health", probe(), "health", "The process answers.", "Health").open(false),
        reads("/readyz", probe(), "ready", "The gateway takes requests.", "Readiness").refuses(&[503]).open(false),
        reads("/metrics", probe(), "metrics", "Metrics for Prometheus.", "").answers(200, Answered::Metrics).open(true),
    ]
}

fn of_control() -> Vec<Row> {
    const BROKEN: &[u16] = &[404, 409, 422, 503];
    let admin = |method, path, handler, id, summary| {
        changes((method, path), handler, Role::Admin, id, summary, "Answer").refuses(BROKEN).alias()
    };
    vec![
        reads("/api/v1/plugins", get(calls::plugins), "listPlugins", "Plugins, their versions, what was refused.", "Plugins").alias(),
        admin("post", "/api/v1/plugins", post(calls::upload), "uploadPlugin", "Upload a version of a plugin.")
            .query(ACTIVATE)
            .sends(Sent::Component)
            .refuses(&[404, 408, 409, 413, 422, 503]),
        reads("/api/v1/plugins/{name}", get(calls::plugin), "readPlugin", "A plugin, where it is used, and how it has broken.", "PluginInUse")
            .refuses(&[404]),
        admin("delete", "/api/v1/plugins/{name}", delete(calls::remove), "removePlugin", "Forget what was uploaded of a plugin."),
        admin("post", "/api/v1/plugins/{name}/activate", post(calls::activate), "activatePlugin", "Put a version in force.")
            .sends(Sent::Json("Activation")),
        admin("post", "/api/v1/plugins/{name}/rollback", post(calls::roll_back), "rollBackPlugin", "Put the version before in force."),
        reads("/api/v1/generations", get(calls::generations), "listGenerations", "What was in force when.", "Generations").alias(),
        admin(
            "post",
            "/api/v1/generations/{number}/rollback",
            post(calls::roll_back_generation),
            "rollBackGeneration",
            "Put policies and plugins of an earlier generation in force.",
        ),
        reads("/api/v1/policies", get(calls::policies), "listPolicies", "The policy files in force.", "Policies"),
        changes(("post", "/api/v1/policies/validate"), post(calls::validate), Role::Viewer, "validatePolicy", "Check policy files without applying them.", "Answer")
            .sends(Sent::Policy)
            .refuses(&[408, 413, 422, 503])
            .alias(),
        admin("post", "/api/v1/reload", post(calls::reload), "reload", "Read policies, plugins and secrets anew."),
        reads("/api/v1/cluster", get(calls::cluster), "cluster", "The nodes that share keys, policies and plugins.", "Cluster"),
        reads("/api/v1/openapi.json", get(calls::openapi), "openapi", "This document.", "Document").open(false).alias(),
        reads("/api/v1/events", get(events::follow), "events", "Changes, and requests that have ended, as they happen. Without `Accept: text/event-stream` the feed ends after five seconds.", "")
            .answers(200, Answered::Events)
            .refuses(&[429]),
    ]
}

/// Names of a kind in the document: one of it, several, and its schemas.
fn names(kind: Kind) -> [&'static str; 6] {
    match kind {
        Kind::AdminToken => [
            "listAdminTokens",
            "createAdminToken",
            "readAdminToken",
            "updateAdminToken",
            "deleteAdminToken",
            "AdminToken",
        ],
        Kind::Budget => ["listBudgets", "createBudget", "readBudget", "updateBudget", "deleteBudget", "Budget"],
        Kind::Feature => ["listFeatures", "createFeature", "readFeature", "updateFeature", "deleteFeature", "Feature"],
        Kind::Limit => ["listLimits", "createLimit", "readLimit", "updateLimit", "deleteLimit", "Limit"],
        Kind::Service => {
            ["listServices", "registerService", "readService", "updateService", "deregisterService", "Service"]
        }
        Kind::Team => ["listTeams", "createTeam", "readTeam", "updateTeam", "deleteTeam", "Team"],
        Kind::VendorKey => ["listKeys", "createKey", "readKey", "updateKey", "deleteKey", "Key"],
        Kind::VirtualKey => [
            "listVirtualKeys",
            "createVirtualKey",
            "readVirtualKey",
            "updateVirtualKey",
            "deleteVirtualKey",
            "VirtualKey",
        ],
    }
}

/// Names of the schemas of a kind: a new one, a change, one, a page of them.
fn schemas(kind: Kind) -> [&'static str; 4] {
    match kind {
        Kind::AdminToken => ["NewAdminToken", "AdminTokenChange", "AdminToken", "AdminTokens"],
        Kind::Budget => ["NewBudget", "BudgetChange", "Budget", "Budgets"],
        Kind::Feature => ["NewFeature", "FeatureChange", "Feature", "Features"],
        Kind::Limit => ["NewLimit", "LimitChange", "Limit", "Limits"],
        Kind::Service => ["NewService", "ServiceChange", "Service", "Services"],
        Kind::Team => ["NewTeam", "TeamChange", "Team", "Teams"],
        Kind::VendorKey => ["NewKey", "KeyChange", "Key", "Keys"],
        Kind::VirtualKey => ["NewVirtualKey", "VirtualKeyChange", "VirtualKey", "VirtualKeys"],
    }
}

fn of_kind(kind: Kind, [all, one]: [&'static str; 2], role: Role) -> Vec<Row> {
    let ([list, create, read, update, remove, _], [new, change, shown, page]) = (names(kind), schemas(kind));
    // Who may see admin tokens may use the role that makes them.
    let reader = if role == Role::Admin { Role::Admin } else { Role::Viewer };
    let mut rows = vec![
        reads(all, documents::list(kind), list, "All of them, by id.", page).query(PAGE),
        changes(("post", all), documents::create(kind), role, create, "Make one.", shown)
            .sends(Sent::Json(new))
            .answers(201, Answered::Document(shown))
            .refuses(&[408, 409, 413]),
        reads(one, documents::read(kind), read, "One of them.", shown)
            .answers(200, Answered::Document(shown))
            .refuses(&[404]),
        changes(("patch", one), documents::change(kind), role, update, "Change some of its members (RFC 7396).", shown)
            .sends(Sent::Json(change))
            .answers(200, Answered::Document(shown))
            .refuses(&[404, 408, 409, 412, 413])
            .versioned(),
        changes(("delete", one), documents::remove(kind), role, remove, "Delete it.", "Deleted")
            .refuses(&[404, 409, 412])
            .versioned(),
    ];
    for row in rows.iter_mut().filter(|row| row.doc.method == "get") {
        row.access = Access::Role(reader);
    }
    rows
}

fn rotations() -> Vec<Row> {
    let rotate = |path, kind, role, id, schema| {
        changes(
            ("post", path),
            documents::rotate(kind),
            role,
            id,
            "A new secret; the old one is accepted for a while.",
            schema,
        )
        .sends(Sent::Perhaps("Rotation"))
        .answers(200, Answered::Document(schema))
        .refuses(&[404, 408, 409, 412, 413])
        .versioned()
    };
    vec![
        rotate("/api/v1/virtual-keys/{id}/rotate", Kind::VirtualKey, Role::Operator, "rotateVirtualKey", "VirtualKey"),
        rotate("/api/v1/admin-tokens/{id}/rotate", Kind::AdminToken, Role::Admin, "rotateAdminToken", "AdminToken"),
    ]
}

fn of_vendor_keys() -> Vec<Row> {
    let (all, one) = ("/api/v1/keys", "/api/v1/keys/{id}");
    let mut rows = of_kind(Kind::VendorKey, [all, one], Role::Admin);
    for row in &mut rows {
        match row.doc.method {
            "post" => row.handler = vendor_keys::create(),
            "patch" => row.handler = vendor_keys::change(),
            "delete" => row.handler = vendor_keys::remove(),
            _ => row.access = Access::Role(Role::Viewer),
        }
    }
    let rotate = changes(
        ("post", "/api/v1/keys/{id}/rotate"),
        vendor_keys::rotate(),
        Role::Admin,
        "rotateKey",
        "Put another key in the place of the one that is there.",
        "Key",
    );
    let rotate = rotate.sends(Sent::Json("KeyRotation")).answers(200, Answered::Document("Key"));
    rows.push(rotate.refuses(&[404, 408, 409, 412, 413]).versioned());
    rows
}

fn of_features() -> Vec<Row> {
    let one = "/api/v1/features/{name}";
    let operator = Role::Operator;
    vec![
        reads(
            "/api/v1/features",
            get(features::list),
            "listFeatures",
            "Capabilities, and who serves them.",
            "Features",
        ),
        reads(one, get(features::read), "readFeature", "One capability, and who serves it.", "Feature").refuses(&[404]),
        changes(
            ("put", one),
            documents::replace(Kind::Feature),
            operator,
            "putFeature",
            "Make or replace one.",
            "FeatureDocument",
        )
        .sends(Sent::Json("NewFeature"))
        .answers(200, Answered::Document("FeatureDocument"))
        .refuses(&[408, 409, 412, 413])
        .versioned(),
        changes(
            ("patch", one),
            documents::change(Kind::Feature),
            operator,
            "updateFeature",
            "Change some of its members (RFC 7396).",
            "FeatureDocument",
        )
        .sends(Sent::Json("FeatureChange"))
        .answers(200, Answered::Document("FeatureDocument"))
        .refuses(&[404, 408, 409, 412, 413])
        .versioned(),
        changes(
            ("delete", one),
            documents::remove(Kind::Feature),
            operator,
            "deleteFeature",
            "Delete it; a built-in one is as it was.",
            "Deleted",
        )
        .refuses(&[404, 409, 412])
        .versioned(),
        changes(
            ("post", "/api/v1/route/{feature}"),
            post(features::route),
            Role::Viewer,
            "route",
            "The decision that routing would take, and why; no vendor is asked.",
            "Decision",
        )
        .sends(Sent::Json("RouteRequest"))
        .refuses(&[404, 408, 413]),
    ]
}

fn of_services() -> Vec<Row> {
    let (all, one) = ("/api/v1/services", "/api/v1/services/{id}");
    let operator = Role::Operator;
    vec![
        reads(all, get(services::list), "listServices", "Services, and how they are.", "Services").query(SERVICES),
        changes(
            ("post", all),
            post(services::register),
            operator,
            "registerService",
            "Register a service; one of the same id is replaced.",
            "Service",
        )
        .sends(Sent::Json("NewService"))
        .answers(201, Answered::Document("ServiceDocument"))
        .refuses(&[408, 409, 413]),
        reads(one, get(services::read), "readService", "One service, and how it is.", "Service")
            .answers(200, Answered::Document("Service"))
            .refuses(&[404]),
        changes(
            ("delete", one),
            delete(services::deregister),
            operator,
            "deregisterService",
            "The service is gone.",
            "Deleted",
        )
        .refuses(&[404, 409, 412])
        .versioned(),
        changes(
            ("post", "/api/v1/services/{id}/heartbeat"),
            post(services::heartbeat),
            operator,
            "heartbeat",
            "The service is there.",
            "ServiceHealth",
        )
        .refuses(&[404]),
        reads(
            "/api/v1/services/{id}/health",
            get(services::of_one),
            "serviceHealth",
            "How the service is.",
            "ServiceHealth",
        )
        .refuses(&[404]),
    ]
}

fn of_reports() -> Vec<Row> {
    vec![
        reads("/api/v1/usage", get(reports::usage), "usage", "What was used, summed up.", "Usage").query(USAGE),
        reads("/api/v1/audit", get(reports::audit), "audit", "Who has changed what, the newest first.", "Audit")
            .query(AUDIT),
        reads(
            "/api/v1/prices",
            get(reports::prices),
            "listPrices",
            "What models cost, in US dollars for a million tokens or for one of what is no token.",
            "Prices",
        )
        .query(PRICES),
        reads(
            "/api/v1/jobs",
            get(reports::jobs),
            "listJobs",
            "Requests that go on without their callers, the newest first.",
            "Jobs",
        )
        .query(JOBS),
        reads("/api/v1/jobs/{id}", get(reports::job), "readJob", "One job.", "Job").refuses(&[404]),
    ]
}
