/// The names in Eureka's documents, each once: in JSON a key, in XML an element.
macro_rules! fields {
    ($($field:ident $name:literal $(| $alias:literal)*,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Field {
            $($field,)*
            /// None of these.
            Other,
        }

        impl Field {
            pub(super) fn named(name: &str) -> Self {
                match name {
                    $($name $(| $alias)* => Self::$field,)*
                    _ => Self::Other,
                }
            }

            pub(super) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$field => $name,)*
                    Self::Other => "?",
                }
            }
        }
    };
}

fields! {
    Applications "applications",
    // Servers may be told to write a single underscore.
    Version "versions__delta" | "versions_delta",
    Hash "apps__hashcode" | "apps_hashcode",
    Application "application",
    Name "name",
    Instance "instance",

    InstanceId "instanceId",
    HostName "hostName",
    App "app",
    IpAddr "ipAddr",
    Sid "sid",
    Status "status",
    OverriddenStatus "overriddenStatus" | "overriddenstatus",
    Port "port",
    SecurePort "securePort",
    CountryId "countryId",
    DataCenterInfo "dataCenterInfo",
    LeaseInfo "leaseInfo",
    Metadata "metadata",
    AppGroupName "appGroupName",
    HomePageUrl "homePageUrl",
    StatusPageUrl "statusPageUrl",
    HealthCheckUrl "healthCheckUrl",
    SecureHealthCheckUrl "secureHealthCheckUrl",
    VipAddress "vipAddress",
    SecureVipAddress "secureVipAddress",
    IsCoordinatingDiscoveryServer "isCoordinatingDiscoveryServer",
    LastUpdatedTimestamp "lastUpdatedTimestamp",
    LastDirtyTimestamp "lastDirtyTimestamp",
    ActionType "actionType",
    AsgName "asgName",

    Class "@class" | "class",
    PortNumber "$",
    PortEnabled "@enabled" | "enabled",

    RenewalIntervalInSecs "renewalIntervalInSecs",
    DurationInSecs "durationInSecs",
    RegistrationTimestamp "registrationTimestamp",
    // An old client's name for it stands second.
    LastRenewalTimestamp "lastRenewalTimestamp" | "renewalTimestamp",
    EvictionTimestamp "evictionTimestamp",
    ServiceUpTimestamp "serviceUpTimestamp",

    ReplicationList "replicationList",
    AppName "appName",
    Id "id",
    InstanceInfo "instanceInfo",
    Action "action",
    ResponseList "responseList",
    StatusCode "statusCode",
    ResponseEntity "responseEntity",

    // No field: how serde_json shows a number where it keeps all digits.
    AllDigits "$serde_json::private::Number",
}
