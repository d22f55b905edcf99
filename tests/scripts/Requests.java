// Requests.java URL COUNT: so many requests one after the other by Java's own HTTP client (HTTP/1.1);
// prints how many got 200.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Requests {
    public static void main(String[] args) throws Exception {
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var request = HttpRequest.newBuilder(URI.create(args[0])).build();
        int ok = 0;
        for (int i = 0; i < Integer.parseInt(args[1]); i++) {
            if (client.send(request, BodyHandlers.ofString()).statusCode() == 200) ok++;
        }
        System.out.println(ok);
    }
}
