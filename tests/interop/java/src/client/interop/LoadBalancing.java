package interop;

import org.springframework.cloud.client.loadbalancer.LoadBalanced;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.web.client.RestTemplate;

@Configuration
class LoadBalancing {
    @Bean
    @LoadBalanced
    RestTemplate balanced() {
        return new RestTemplate();
    }
}
