package interop;

import com.netflix.discovery.AbstractDiscoveryClientOptionalArgs;
import com.netflix.discovery.Jersey3DiscoveryClientOptionalArgs;
import com.netflix.discovery.shared.transport.jersey.TransportClientFactories;
import com.netflix.discovery.shared.transport.jersey3.Jersey3TransportClientFactories;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** What Spring Cloud demands of an application that has Jersey 3 on its class path. */
@Configuration
class Jersey3 {
    @Bean
    TransportClientFactories<?> transportClientFactories() {
        return Jersey3TransportClientFactories.getInstance();
    }

    @Bean
    AbstractDiscoveryClientOptionalArgs<?> discoveryClientOptionalArgs() {
        return new Jersey3DiscoveryClientOptionalArgs();
    }
}
