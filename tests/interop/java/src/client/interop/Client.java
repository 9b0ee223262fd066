package interop;

import java.util.List;
import java.util.stream.Collectors;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.cloud.client.discovery.DiscoveryClient;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.client.RestTemplate;

/** A service of Spring Cloud: finds others, calls them, and is called. */
@SpringBootApplication
@RestController
public class Client {
    private final DiscoveryClient discovery;
    private final RestTemplate balanced;
    private final String name;

    public Client(DiscoveryClient discovery, RestTemplate balanced,
            @Value("${spring.application.name}") String name) {
        this.discovery = discovery;
        this.balanced = balanced;
        this.name = name;
    }

    public static void main(String[] arguments) {
        SpringApplication.run(Client.class, arguments);
    }

    @GetMapping("/hello")
    public String hello() {
        return "hello from " + name;
    }

    @GetMapping("/instances/{service}")
    public List<String> instances(@PathVariable("service") String service) {
        return discovery.getInstances(service).stream().map(instance -> instance.getUri().toString())
                .collect(Collectors.toList());
    }

    @GetMapping("/call/{service}")
    public String call(@PathVariable("service") String service) {
        return balanced.getForObject("http://" + service + "/hello", String.class);
    }
}
