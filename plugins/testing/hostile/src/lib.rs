wit_bindgen::generate!({path: "../../../wit", inline: "
package testing:hostile;
world hostile {
    include penstock:plugin/adapter-plugin@0.1.0;
    export penstock:plugin/limits@0.1.0;
    export penstock:plugin/auth@0.1.0;
    export penstock:plugin/routing@0.1.0;
    export penstock:plugin/head-filter@0.1.0;
    export penstock:plugin/response-filter@0.1.0;
}
", world: "hostile", generate_all});
