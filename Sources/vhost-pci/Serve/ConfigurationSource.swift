import Glibc
import HostSystem
import PCI

/// Where a configuration file is, and what options put in the place of its keys.
struct ConfigurationSource {
    let path: String
    /// `--control`.
    var control: String?
    /// `--log-level`.
    var logLevel: LogLevel?

    /// Reads it. Throws `ConfigurationProblemList` for what is wrong with the text, and `HostRefusal`
    /// when there is no text.
    func read() throws -> ServeConfiguration {
        var configuration = try ConfigurationReader.read(yaml: try text())
        if let control { configuration.control = control }
        if let logLevel { configuration.logLevel = logLevel }
        return configuration
    }

    /// Reads it again, on a thread that may not wait: only a file is read again.
    func readAgain() throws -> ServeConfiguration {
        var information = stat()
        if unsafe stat(path, &information) == 0, information.st_mode & S_IFMT != S_IFREG {
            throw refusal("is no file, and cannot be read again").again
        }
        do {
            return try read()
        } catch let refusal as HostRefusal {
            throw refusal.again
        } catch let list as ConfigurationProblemList {
            let check = "`vhost-pci serve --config \(path) --check-config` checks it"
            throw RPCError(
                list,
                in: path,
                remedy: "nothing is changed; mend the file and reload again, \(check)"
            )
        }
    }

    private func text() throws -> String {
        var bytes: [UInt8] = []
        do throws(SystemError) {
            let file = try FileDescriptor.open(path, writable: false)
            // Read from where it stands, so that it may be a pipe.
            var piece = [UInt8](repeating: 0, count: 64 << 10)
            while bytes.count <= ConfigurationValue.sizeLimit {
                let count = unsafe Glibc.read(file.rawValue, &piece, piece.count)
                guard count >= 0 else { throw SystemError("read \(path)", Errno(errno)) }
                if count == 0 { break }
                bytes += piece[..<count]
            }
        } catch {
            throw refusal("cannot be read: \(error.errno)")
        }
        guard bytes.count <= ConfigurationValue.sizeLimit else {
            throw refusal("has more than \(ConfigurationValue.sizeLimit) bytes")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw refusal("is no UTF-8 text")
        }
        return text
    }

    private func refusal(_ what: String) -> HostRefusal {
        HostRefusal(
            "config/file",
            "\(path) \(what)",
            remedy: "--config takes a YAML file as docs/serve.md describes it"
        )
    }
}

extension HostRefusal {
    /// The same, of a file that is read again.
    fileprivate var again: HostRefusal {
        HostRefusal(id, detail, remedy: "nothing is changed; put a file there and reload again")
    }
}
